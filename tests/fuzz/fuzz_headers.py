"""Targets: header lists, dead letters, and where a key goes."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from fuzzing import CANARY, Target, a_text, bad, damaged, require

from consumer.codecs.control_headers import (
    EVENT_ID,
    ONLY_TASKS,
    REPLAY_COUNT,
    REPLAY_GROUP,
    control_text,
    only_tasks_of,
)
from consumer.codecs.decoding import decode
from consumer.codecs.outputs import continue_trace, result_headers
from consumer.delivery.dead_letter_size import without_carried_headers, without_value
from consumer.delivery.dead_letters import (
    KIP_1191,
    MESSAGE_BYTES,
    ORIGINAL_TIMESTAMP,
    PREFIX,
    CompatibleSet,
    DeadLetters,
    Failure,
    replay_count,
)
from consumer.delivery.letters import read_letter, replayed, why_not
from consumer.events import BadInput, SourceRecord
from consumer.extraction.task import Task
from consumer.local.partition_budget import murmur2, partition_of

if TYPE_CHECKING:
    from consumer.events import Header, Output

_TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_TASK = Task("sentiment", "classify", {"好": None, "坏": None})
_NAMES = (
    "traceparent", "Traceparent", "TRACEPARENT", "tracestate", EVENT_ID, ONLY_TASKS, REPLAY_COUNT, REPLAY_GROUP,
    ORIGINAL_TIMESTAMP, PREFIX + "class", PREFIX, KIP_1191 + "topic", KIP_1191 + "delivery.count", "content-type",
    "Content-Type", "__TypeId__", "rexstream-task", "", "x", "rexstream-result-id", "日志",
    "rexstream-task-fingerprint",
)  # fmt: skip
_NUMBERS = (
    b"0",
    b"1",
    b"007",
    b"-1",
    b"1" * 30,
    b"9" * 5000,
    b"\xd9\xa3",
    b"1.5",
    b" 1",
    b"1_0",
    b"",
    b"18446744073709551616",
)
_TIMES = (
    b"2026-01-01T00:00:00.000+00:00",
    b"0001-01-01",
    b"9999-12-31T23:59:59-14:00",
    b"2026-W07",
    b"24:00",
    b"12:00:00Z",
)
_TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def a_header_value(random: Random) -> bytes | None:
    match random.randrange(6):
        case 0:
            return None
        case 1 | 2:
            return damaged(random, _TRACE, (b"ff", b"00", b"-", b"-extra", b"0" * 32, b"\n"))
        case 3:
            return random.choice(_NUMBERS)
        case 4:
            return (a_text(random, 4, surrogates=0) + CANARY).encode()
        case _:
            return random.randbytes(random.choice((0, 1, 3, 300)))


def a_header_list(random: Random) -> tuple[Header, ...]:
    """Names repeat, values are null, not UTF-8, or nearly what they should be."""
    return tuple(
        (random.choice(_NAMES) if random.random() < 0.9 else a_text(random, 2, surrogates=0), a_header_value(random))
        if random.random() < 0.8
        else (random.choice(_NAMES[:3]), _TRACE)
        for _ in range(random.choice((0, 1, 1, 2, 3, 6, 12)))
    )


def check_headers(headers: tuple[Header, ...]) -> str:
    trace = continue_trace(headers, Random(7).randbytes)
    require(trace.traceparent[3:35] == trace.trace_id, "another trace id")
    require(_TRACEPARENT.fullmatch(trace.traceparent), f"traceparent {trace.traceparent!r}")
    require(all(int(part, 16) for part in trace.traceparent.split("-")[1:3]), "a trace of nothing but zeros")
    sent = result_headers(headers, _TASK, "0" * 64, trace)
    check_sendable(sent)
    require(sum(name.lower() == "traceparent" for name, _ in sent) == 1, "not one traceparent")
    require(replay_count(headers, "group") >= 0, "a negative count")
    try:
        record = SourceRecord("reviews.raw", 0, 0, 0, None, b"x", headers, None, 0.0)
        event_id, only = decode(record, "text", 1).event_id, only_tasks_of(headers)
    except BadInput as error:
        return bad(error)
    require(event_id, "an empty event id")
    require(only is None or (only and all(only)), "an empty choice of tasks")
    return "continued" if trace.continued else "new trace"


def check_sendable(headers: tuple[Header, ...]) -> None:
    """Check that Kafka's producer takes them."""
    for name, value in headers:
        require(type(name) is str and (value is None or type(value) is bytes), f"header {name!r} of another type")
        name.encode()


# -- dead letters -----------------------------------------------------------------------------------------------------

_LETTERS = {chosen: DeadLetters("reviews.dead", "group", "1.0", chosen) for chosen in get_args(CompatibleSet)}


class Doomed(NamedTuple):
    """A record, why it failed, the time in milliseconds since 1970, and whose headers are added."""

    record: SourceRecord
    failure: Failure
    now: int
    compatible: CompatibleSet


def a_dead_letter(random: Random) -> Doomed:
    now = 1_800_000_000_000
    record = SourceRecord(
        topic="reviews.raw",
        partition=random.randrange(2**31),
        offset=random.choice((0, 7, 2**63 - 1)),
        epoch=1,
        key=random.choice((None, b"", b"k", random.randbytes(9))),
        value=random.choice((None, b"", random.randbytes(20))),
        headers=a_header_list(random),
        timestamp_ms=random.choice((None, 0, -1, 1, now, now + 1, 2**63 - 1, -(2**63))),
        fetched_at=0.0,
    )
    text = a_text(random, surrogates=0)
    failure = Failure(
        stage=random.choice(("decode", "validate", "extract", "produce")),
        reason="InvalidJson",
        message=text * random.choice((1, 1, 1, 300)),
        first_failed_at_ms=now - random.randrange(10**6),
        exception=random.choice((None, "consumer.events.BadInput")),
        attempts=random.choice((1, 5)),
        task=random.choice((None, "sentiment", text[:200])),
        model=random.choice((None, "rexuninlu")),
    )
    return Doomed(record, failure, now, random.choice(tuple(_LETTERS)))


def check_dead_letter(doomed: Doomed) -> str:
    record, failure, now, compatible = doomed
    letters = _LETTERS[compatible]
    letter = letters.of(record, failure, now)
    _check_letter(letter, record, now)
    require((letter.key, letter.value) == (record.key, record.value), "another key or value")
    said = dict(letter.headers)
    require(said[PREFIX + "class"] == failure.reason.encode(), "another class")
    require(len(said[KIP_1191 + "message"] or b"") <= MESSAGE_BYTES, "a long message")
    # A replay brings the letter back with its headers; what fails again is a letter once more, no larger than before.
    count = replay_count(record.headers, "group")
    replay = ((EVENT_ID, b"e"), (REPLAY_COUNT, str(count + 1).encode()), (REPLAY_GROUP, b"group"))
    again = replace(record, headers=(*letter.headers, *replay))
    second = letters.of(again, failure, now)
    _check_letter(second, again, now)
    require(dict(second.headers)[REPLAY_COUNT] == str(count + 1).encode(), "a count that is lost")
    require(len(second.headers) <= len(letter.headers) + len(replay), "headers that pile up")
    smaller = without_value(letter)
    for step in (smaller, without_carried_headers(smaller or letter)):
        if step is not None:
            _check_letter(step, record, now)
            require(dict(step.headers)[PREFIX + "class"] == failure.reason.encode(), "a class that is lost")
    return f"{'null' if smaller is None else 'value'}, {'clamped' if letter.timestamp_ms == now else 'kept'} time"


def _check_letter(letter: Output, record: SourceRecord, now: int) -> None:
    check_sendable(letter.headers)
    require(letter.timestamp_ms is not None and 0 < letter.timestamp_ms <= now, f"timestamp {letter.timestamp_ms}")
    require(letter.partition == record.partition, "another partition")
    names = [name for name, _ in letter.headers if name.startswith(PREFIX)]
    require(len(names) == len(set(names)), f"a header twice: {names}")


def a_letter_to_read(random: Random) -> SourceRecord:
    """A dead letter as it lies in its topic, or what else may lie there."""
    doomed = a_dead_letter(random)
    letter = _LETTERS[doomed.compatible].of(doomed.record, doomed.failure, doomed.now)
    headers = [
        (name, value if value is None or random.random() < 0.95 else _a_spoilt_value(random, value))
        for name, value in letter.headers
        if random.random() < 0.98
    ]
    return replace(doomed.record, topic="reviews.dead", headers=tuple(headers), value=letter.value)


def _a_spoilt_value(random: Random, value: bytes) -> bytes:
    return damaged(random, value, _NUMBERS) if random.random() < 0.5 else random.choice((*_NUMBERS, *_TIMES))


def check_letter_reading(record: SourceRecord) -> str:
    letter = read_letter(record)
    if letter is None:
        return "no letter"
    require(letter.partition >= 0 and letter.offset >= 0 and letter.replay_count >= 0, "a negative number")
    skipped = why_not(letter, 5, letter.group)
    if skipped is not None:
        return skipped
    output = replayed(letter, letter.group or "group")
    check_sendable(output.headers)
    require((output.key, output.value) == (record.key, record.value), "another key or value")
    require(
        replay_count(output.headers, letter.group or "group") == letter.replay_count + 1, "a count that does not grow"
    )
    again = replace(record, headers=output.headers)
    require(control_text(again.headers, EVENT_ID), "no event id")
    if letter.task is not None:
        require(only_tasks_of(again.headers) == frozenset(letter.tasks), "another task")
    return "replayed"


# -- the partitioner --------------------------------------------------------------------------------------------------


def slow_murmur2(data: bytes) -> int:
    """Java's own steps with its signed 32-bit arithmetic, byte by byte."""

    def signed(number: int) -> int:
        return (number + (1 << 31)) % (1 << 32) - (1 << 31)

    def shifted(number: int, places: int) -> int:
        return number % (1 << 32) >> places

    m = 0x5BD1E995
    digest = signed(0x9747B28C ^ len(data))
    for block in range(len(data) // 4):
        k = signed(sum(data[4 * block + place] << 8 * place for place in range(4)))
        k = signed(k * m)
        k = signed((k ^ shifted(k, 24)) * m)
        digest = signed(signed(digest * m) ^ k)
    tail = data[len(data) // 4 * 4 :]
    if len(tail) == 3:
        digest ^= tail[2] << 16
    if len(tail) >= 2:
        digest ^= tail[1] << 8
    if tail:
        digest = signed((digest ^ tail[0]) * m)
    digest = signed((digest ^ shifted(digest, 13)) * m)
    return signed(digest ^ shifted(digest, 15))


def check_partitioner(key: bytes) -> str:
    expected = slow_murmur2(key)
    require(murmur2(key) == expected % 2**32, "another hash")
    for partitions in (1, 3, 12, 1000):
        require(partition_of(key, partitions) == (expected & 0x7FFFFFFF) % partitions, "another partition")
    return f"{len(key) % 4} bytes behind the blocks"


def _a_key(random: Random) -> Any:
    return a_text(random, 3, surrogates=0).encode() if random.random() < 0.5 else random.randbytes(random.randrange(40))


TARGETS = (
    Target("headers", 100, a_header_list, check_headers),
    Target("dead-letters", 60, a_dead_letter, check_dead_letter),
    Target("letter-reading", 40, a_letter_to_read, check_letter_reading),
    Target("partitioner", 40, _a_key, check_partitioner),
)
