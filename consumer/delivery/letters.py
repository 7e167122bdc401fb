"""Dead letters as they are read back: what their headers say, which of them an operator means, and their replay.

The ``dead-letters`` commands list and replay them. A replay sends the original record again, with three headers by
which the worker treats it as the same: the default event id, which a new place would change and with it every
``result_id``; the task that failed, since its siblings have their results; and how often the record was replayed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from consumer.codecs.decoding import EVENT_ID, ONLY_TASKS, last_value
from consumer.config.names import TASK_NAME
from consumer.delivery.dead_letters import CONNECT, KIP_1191, MAX_DIGITS, PREFIX, REPLAY_COUNT, SPRING
from consumer.events import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from consumer.events import Header, SourceRecord


_YEAR_10000_MS = 253_402_300_800_000
"""Times from here on cannot be formatted as a date."""

Skipped = Literal["value_omitted", "replayed_too_often", "impossible_task"]

WHY_SKIPPED: dict[Skipped, str] = {
    "value_omitted": "their value is not in them: the dead-letter topic was too small for it",
    "replayed_too_often": "they were replayed as often as --max-replays allows",
    "impossible_task": "no task can have the name that they failed for",
}


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``topic``, ``partition`` and ``offset`` are those of the record that failed."""

    id: str
    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    task: str | None
    message: str
    replay_count: int
    failed_at_ms: int | None
    """Milliseconds since 1970; None when its header cannot be read."""
    record: SourceRecord
    """The dead letter itself, with its own place."""

    @property
    def possible_task(self) -> bool:
        """Whether the task, if any is named, has a name that a task can have; else it may be anything, review text."""
        return self.task is None or TASK_NAME.fullmatch(self.task) is not None

    @property
    def shown_task(self) -> str | None:
        """The task's name, or its length where no task can have it."""
        return self.task if self.task is None or self.possible_task else f"({len(self.task)} characters)"

    @property
    def shown_id(self) -> str:
        """The id, of which the task's name is a part, with ``shown_task`` in its place."""
        return self.id if self.possible_task else f"{self.id.removesuffix(self.task or '')}{self.shown_task}"


def read_letter(record: SourceRecord) -> Letter | None:
    """The dead letter in ``record``, or None when it is none of ours: it lacks an id, or the place of its record."""
    texts = header_texts(record)
    names = (PREFIX + "id", KIP_1191 + "topic", KIP_1191 + "partition", KIP_1191 + "offset")
    identifier, topic, partition, offset = (texts.get(name, "") for name in names)
    if not (identifier and topic and _is_number(partition) and _is_number(offset)):
        return None
    count = texts.get(PREFIX + "replay-count", "")
    return Letter(
        id=identifier,
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        stage=texts.get(PREFIX + "stage", ""),
        reason=texts.get(PREFIX + "class", ""),
        task=texts.get(PREFIX + "task"),
        message=texts.get(KIP_1191 + "message", ""),
        replay_count=int(count) if _is_number(count) else 0,
        failed_at_ms=_milliseconds(texts.get(PREFIX + "failed-at", "")),
        record=record,
    )


def header_texts(record: SourceRecord) -> dict[str, str]:
    """Headers as text; of a repeated name the last, since those about the failure stand behind the record's own."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: each filter that is not empty must name the letter."""

    ids: frozenset[str] = frozenset()
    """Ids as they are, or as they are shown."""
    reasons: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    """Topics that the failed records came from."""
    since_ms: int | None = None
    """Failed at this time or later, milliseconds since 1970."""
    until_ms: int | None = None
    """Failed before this time."""

    def takes(self, letter: Letter) -> bool:
        """Whether ``letter`` is meant. With a limit of time, one that does not say when it failed is not."""
        named: tuple[tuple[frozenset[str], set[str | None]], ...] = (
            (self.ids, {letter.id, letter.shown_id}),
            (self.reasons, {letter.reason}),
            (self.stages, {letter.stage}),
            (self.tasks, {letter.task}),
            (self.topics, {letter.topic}),
        )
        if any(wanted and not wanted & found for wanted, found in named):
            return False
        at = letter.failed_at_ms
        if at is None:
            return self.since_ms is None and self.until_ms is None
        return (self.since_ms is None or self.since_ms <= at) and (self.until_ms is None or at < self.until_ms)


@dataclass(slots=True)
class LetterFilter:
    """Sorts the records of a dead-letter topic, once each: letters to work on, and what is left out and why.

    A copy with its value is preferred to one without and may come later: ``rest`` has the letters for which none came.
    """

    selection: Selection
    replayed_ids: Mapping[str, int]
    """Ids of the letters that were replayed: those that have a marker, and its milliseconds since 1970."""
    replayed: int = 0
    """Selected letters that were replayed already."""
    younger: int = 0
    """Of ``replayed``: letters that failed after their marker was written. In a recreated topic, the marker is that of
    an earlier record at the same offset."""
    copies: int = 0
    """Further copies of a selected letter: at least once, a restarted worker writes some again."""
    other_records: int = 0
    """Records that are no dead letters."""
    by_class: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, class) -> letters that were let through."""
    _seen: set[str] = field(default_factory=set)
    """Ids of which no further copy matters."""
    _without_value: dict[str, Letter] = field(default_factory=dict)

    def take(self, record: SourceRecord) -> Letter | None:
        """The letter to work on in ``record``, or None, counted."""
        letter = read_letter(record)
        self.other_records += letter is None
        if letter is None or not self.selection.takes(letter):
            return None
        self.copies += letter.id in self._seen or letter.id in self._without_value
        if letter.id in self._seen:
            return None
        if letter.id in self.replayed_ids:
            self._seen.add(letter.id)
            self.replayed += 1
            self.younger += (letter.failed_at_ms or 0) > self.replayed_ids[letter.id]
            return None
        if record.value is None:
            self._without_value.setdefault(letter.id, letter)
            return None
        self._without_value.pop(letter.id, None)
        return self._through(letter)

    def rest(self) -> Iterator[Letter]:
        """At the end of the topic: the letters of which no copy has its value."""
        while self._without_value:
            yield self._through(self._without_value.pop(next(iter(self._without_value))))

    def _through(self, letter: Letter) -> Letter:
        self._seen.add(letter.id)
        self.by_class[letter.stage, letter.reason] += 1
        return letter


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _milliseconds(text: str) -> int | None:
    try:
        moment = round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return moment if 0 <= moment < _YEAR_10000_MS else None


def why_not(letter: Letter, max_replays: int) -> Skipped | None:
    """Why ``letter`` cannot be sent again, or None when it can. ``max_replays`` is how often a record may be."""
    # A record without a value is dropped, never dead-lettered: its topic was too small for it.
    if letter.record.value is None:
        return "value_omitted"
    if letter.replay_count >= max_replays:
        return "replayed_too_often"
    # Such a name may hold the comma that separates names in the header, and so name tasks that have their results.
    return None if letter.possible_task else "impossible_task"


def replayed(letter: Letter) -> Output:
    """The record to produce to the letter's original topic, stamped by the producer.

    Where the value has no event id, the record's first default id is kept. When the failure came before its tasks were
    known, the tasks stay narrowed to those of an earlier replay.
    """
    record = letter.record
    default_id = f"{letter.topic}-{letter.partition}-{letter.offset}".encode()
    added = {
        EVENT_ID: _readable(record.headers, EVENT_ID) or default_id,
        ONLY_TASKS: _readable(record.headers, ONLY_TASKS) if letter.task is None else letter.task.encode(),
        REPLAY_COUNT: str(letter.replay_count + 1).encode(),
    }
    kept = [
        header
        for header in record.headers
        if not header[0].startswith((PREFIX, KIP_1191, CONNECT, SPRING)) and header[0] not in added
    ]
    headers = (*kept, *((name, value) for name, value in added.items() if value))
    return Output(letter.topic, record.key, record.value, headers, letter.partition)


def _readable(headers: Sequence[Header], name: str) -> bytes | None:
    """The value that a worker would read, None when it is not UTF-8, which a worker refuses."""
    value = last_value(headers, name) or b""
    return value if value.decode(errors="ignore").encode() == value else None
