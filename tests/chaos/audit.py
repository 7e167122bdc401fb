"""Compares what was sent with what is there: every record's outcomes, one by one.

It knows nothing of how a worker keeps its books. It reads the input, result and dead-letter topics as a read_committed
consumer sees them, finds each input record's debt by its sequence number in the list of what was sent, and ticks off.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

from chaos.load import SEQUENCE
from chaos.reference import extractions
from chaos.reviews import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from chaos.load import Sent
    from chaos.topics import Topics
    from confluent_kafka import Message

Place = tuple[int, int]
"""Partition and offset of an input record."""

SETTLE_SECONDS = 120.0
"""A killed worker's transaction is aborted by the broker after its timeout; until then readers wait."""


class _Seen(NamedTuple):
    """One record that says it is an outcome."""

    at: Place
    """Where it lies in its own topic."""
    key: bytes | None
    identity: str
    """result_id, or the dead letter's id."""
    sequence: bytes | None
    """The load's header, which every outcome carries on."""
    event_id: str | None
    record: str
    """What it says of its input record, as canonical JSON."""
    content: str | None
    """Digest of its extractions, or of a dead letter's value; None for a value that was left out."""
    version: str = ""
    """Of the model, as a result names it."""


@dataclass(slots=True)
class Audit:
    """What is there, counted. Lists hold one line per finding."""

    inputs: int = 0
    results: int = 0
    """Copies included."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Per ``stage/class``, copies included."""
    repeated_inputs: int = 0
    """Records that are in the input twice, though they were sent once: the load's producer is idempotent, and yet."""
    lost_inputs: list[str] = field(default_factory=list)
    """Records that the broker acknowledged and does not hold: the scenario's own ground gave way."""
    missing: list[str] = field(default_factory=list)
    """Outcomes that are owed and not there."""
    unowed: list[str] = field(default_factory=list)
    """Outcomes that are there and not owed: a dead letter in place of a result, or the other way round."""
    duplicates: int = 0
    """Outcomes beyond the first of each."""
    unequal_copies: list[str] = field(default_factory=list)
    """Copies that differ in result_id (or dead-letter id), key or record: no consumer could tell they are copies."""
    wrong: list[str] = field(default_factory=list)
    """Outcomes that say something else than they must: extractions, event id, key, or another record's header."""
    strangers: int = 0
    """Outcomes of no input record."""
    shared_ids: list[str] = field(default_factory=list)
    """result_ids of more than one record."""
    disorder: int = 0
    """First results that lie behind one of a later record of the same input partition."""
    disorder_of_keys: int = 0
    """The same within a key."""
    versions: Counter[str] = field(default_factory=Counter)
    """Results per model version."""
    named: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The versions that the results of each record of the load name, by its number."""

    def problems(self) -> list[str]:
        """Every finding but duplicates and disorder, which only some modes forbid; empty when there are none."""
        named = {
            "acknowledged inputs lost": self.lost_inputs,
            "missing": self.missing,
            "not owed": self.unowed,
            "copies that differ": self.unequal_copies,
            "wrong": self.wrong,
            "result ids shared by records": self.shared_ids,
        }
        said = [f"{len(lines)} {name}: {'; '.join(lines[:3])}" for name, lines in named.items() if lines]
        return said + ([f"{self.strangers} outcomes of no input record"] if self.strangers else [])


def audit(
    topics: Topics,
    input_topic: str,
    output_topics: Iterable[str],
    dead_topic: str,
    sent: Mapping[int, Sent],
    beside: Collection[str] = (),
) -> Audit:
    """Read everything there is, once no transaction is open on these topics; raises RuntimeError if one stays open.

    Outcomes of the input topics ``beside`` this one are of another audit.
    """
    outputs = [topic for topic in output_topics if topics.exists(topic)]
    dead = [dead_topic] if topics.exists(dead_topic) else []
    deadline = time.monotonic() + SETTLE_SECONDS
    while not all(topics.settled(topic) for topic in (*outputs, *dead)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"a transaction stays open on {', '.join((*outputs, *dead))}")
        time.sleep(0.3)
    found = Audit()
    numbers: dict[Place, int] = {}
    for message in topics.read(input_topic):
        numbers[_at(message)] = int(_headers(message)[SEQUENCE] or b"-1")
    seen: dict[Place, dict[Outcome, list[_Seen]]] = defaultdict(lambda: defaultdict(list))
    for topic in outputs:
        for message in topics.read(topic):
            _note_result(found, seen, message, input_topic, beside)
    for topic in dead:
        for message in topics.read(topic):
            _note_dead_letter(found, seen, message, input_topic, beside)
    _compare(found, seen, numbers, sent)
    return found


def _note_result(
    found: Audit,
    seen: dict[Place, dict[Outcome, list[_Seen]]],
    message: Message,
    input_topic: str,
    beside: Collection[str],
) -> None:
    result = json.loads(message.value() or b"{}")
    record = result.get("record") or {}
    if record.get("topic") in beside:
        return
    found.results += 1
    if record.get("topic") != input_topic:
        found.strangers += 1
        return
    headers = _headers(message)
    found.versions[str(result["model"]["version"])] += 1
    if headers.get("rexstream-result-id") != result["result_id"].encode():
        found.wrong.append(f"{record['partition']}-{record['offset']}: header and value disagree on the result id")
    seen[record["partition"], record["offset"]][Outcome(result["task"])].append(
        _Seen(
            _at(message),
            message.key(),
            result["result_id"],
            headers.get(SEQUENCE),
            result["event_id"],
            json.dumps(record, sort_keys=True),
            _digest(json.dumps(result["extractions"], sort_keys=True).encode()),
            str(result["model"]["version"]),
        )
    )


def _note_dead_letter(
    found: Audit,
    seen: dict[Place, dict[Outcome, list[_Seen]]],
    message: Message,
    input_topic: str,
    beside: Collection[str],
) -> None:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in _headers(message).items()}
    if headers.get("__dlq.errors.topic") in beside:
        return
    reason = f"{headers.get('rexstream-dlq-stage')}/{headers.get('rexstream-dlq-class')}"
    found.dead_letters[reason] += 1
    coordinates = [headers.get(f"__dlq.errors.{name}", "") for name in ("topic", "partition", "offset")]
    if coordinates[0] != input_topic:
        found.strangers += 1
        return
    outcome = Outcome(headers.get("rexstream-dlq-task"), reason)
    omitted = "rexstream-dlq-value-omitted" in headers
    seen[int(coordinates[1]), int(coordinates[2])][outcome].append(
        _Seen(
            _at(message),
            message.key(),
            headers["rexstream-dlq-id"],
            headers[SEQUENCE].encode(),
            None,
            "-".join(coordinates),
            None if omitted else _digest(message.value() or b""),
        )
    )


def _compare(
    found: Audit,
    seen: dict[Place, dict[Outcome, list[_Seen]]],
    numbers: Mapping[Place, int],
    sent: Mapping[int, Sent],
) -> None:
    found.inputs = len(numbers)
    found.strangers += sum(
        len(copies) for place, there in seen.items() if place not in numbers for copies in there.values()
    )
    there_are = set(numbers.values())
    found.lost_inputs = [
        f"record {number}" for number, record in sent.items() if record.acknowledged and number not in there_are
    ]
    owners: dict[str, set[Place]] = defaultdict(set)
    for place, number in sorted(numbers.items()):
        review = sent[number].review
        there = seen.get(place, {})
        name = f"{place[0]}-{place[1]} ({review.kind} {number})"
        found.missing += [f"{name} {_said(outcome)}" for outcome in sorted(review.owes - there.keys(), key=str)]
        for outcome, copies in there.items():
            what = f"{name} {_said(outcome)}"
            if outcome not in review.owes:
                found.unowed.append(what)
            found.duplicates += len(copies) - 1
            if len({(copy.identity, copy.key, copy.record, copy.event_id) for copy in copies}) > 1:
                found.unequal_copies.append(what)
            for copy in copies:
                if outcome.reason is None:
                    owners[copy.identity].add(place)
                    found.named[number].add(copy.version)
                _check(found, what, copy, outcome, sent[number], number)
    found.repeated_inputs = len(numbers) - len(there_are)
    # A record that the load's producer wrote twice (seen when leaders were killed) is one event twice, with equal ids.
    found.shared_ids = [
        identity for identity, places in owners.items() if len({numbers[place] for place in places}) > 1
    ]
    found.disorder = _disorder(seen, by_key=False)
    found.disorder_of_keys = _disorder(seen, by_key=True)


def _check(found: Audit, what: str, copy: _Seen, outcome: Outcome, sent: Sent, number: int) -> None:
    """Whether an outcome says what it must."""
    review = sent.review
    if copy.sequence != str(number).encode() or copy.key != review.key:
        found.wrong.append(f"{what}: header or key of another record")
    if outcome.reason is not None:
        if copy.content is not None and copy.content != _digest(review.value or b""):
            found.wrong.append(f"{what}: the dead letter's value is not the record's")
        return
    if copy.event_id != review.event_id:
        found.wrong.append(f"{what}: event id {copy.event_id}")
    if review.text is None or outcome.task is None:
        return
    # What another version says is wrong, and so is a mixture of two.
    if copy.content != _right(review.text, outcome.task, copy.version):
        found.wrong.append(f"{what}: extractions, of version {copy.version}")


def _disorder(seen: Mapping[Place, Mapping[Outcome, list[_Seen]]], *, by_key: bool) -> int:
    """How often first copies, in the order in which they lie, go back within their input partition."""
    firsts = [
        (min(copy.at for copy in copies), copies[0].key, place)
        for place, there in seen.items()
        for outcome, copies in there.items()
        if outcome.reason is None
    ]
    last: dict[tuple[int, int, bytes | None], int] = {}
    back = 0
    for (partition, _), key, (origin, offset) in sorted(firsts):
        sequence = partition, origin, key if by_key else None
        back += offset < last.get(sequence, -1)
        last[sequence] = max(offset, last.get(sequence, -1))
    return back


@lru_cache(maxsize=10_000)
def _right(text: str, task: str, version: str) -> str:
    return _digest(json.dumps(extractions(text, task, int(version)), sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _said(outcome: Outcome) -> str:
    return f"{outcome.task or '*'} {'result' if outcome.reason is None else outcome.reason}"


def _at(message: Message) -> Place:
    return message.partition() or 0, message.offset() or 0


def _headers(message: Message) -> dict[str, bytes | None]:
    # The library's annotation also allows what it only accepts on the way in.
    return dict(cast("list[tuple[str, bytes | None]]", message.headers() or []))
