"""Dead letters as they are read back: what their headers say, which of them an operator means, and their replay.

The ``dead-letters`` commands list and replay them. A replay sends the original record again, with headers by which the
worker treats it as the same: the default event id, which a new place would change and with it every ``result_id``; the
tasks that failed, since their siblings have their results; and the consumer group that it is for. A fourth says how
often the record was replayed. Anyone may write headers, so that count is taken from the markers of earlier replays.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from consumer.codecs.control_headers import (
    EVENT_ID,
    EVENT_ID_CHARS,
    ONLY_ROWS,
    ONLY_TASKS,
    REPLAY_COUNT,
    REPLAY_GROUP,
    last_value,
)
from consumer.config.names import TASK_NAME
from consumer.delivery.dead_letters import CONNECT, KEY_ADDED, KIP_1191, MAX_DIGITS, NO_TASK, PREFIX, SPRING
from consumer.events import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from consumer.events import Header, SourceRecord


_YEAR_10000_MS = 253_402_300_800_000
"""Times from here on cannot be formatted as a date."""

FORMAT_HEADER = PREFIX + "format"
"""What the other headers of a letter mean, a number. Without it 1, which is all that this release writes and reads."""

Skipped = Literal["value_omitted", "replayed_too_often", "impossible_task", "other_group", "newer_format"]

WHY_SKIPPED: dict[Skipped, str] = {
    "value_omitted": "their value is not in them: the dead-letter topic was too small for it",
    "replayed_too_often": "they were replayed as often as --max-replays allows",
    "impossible_task": "no task can have the name that they failed for",
    "other_group": (
        "another consumer group wrote them; use its configuration, or, if this group had another name then, --group "
        "with that"
    ),
    "newer_format": f"a newer release wrote them ({FORMAT_HEADER} is not 1); replay them with that release",
}


@dataclass(frozen=True, slots=True)
class Markers:
    """What was replayed, as the marker topic says."""

    at_ms: Mapping[str, int] = field(default_factory=dict)
    """Key of a replayed letter -> when, milliseconds since 1970."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """``topic-partition-offset`` of a record that a replay sent -> the how-manieth replay it is, from 1."""

    def replayed_at(self, letter: Letter) -> int | None:
        """When ``letter`` was replayed, None when it was not. Older markers do not name the group that wrote it."""
        return self.at_ms.get(letter.marker_key, self.at_ms.get(letter.id))


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
    """Several with commas between them, where ``task_count`` says so."""
    message: str
    failed_at_ms: int | None
    """Milliseconds since 1970; None when its header cannot be read."""
    record: SourceRecord
    """The dead letter itself, with its own place."""
    group: str = ""
    """The consumer group that wrote it."""
    task_count: int = 1
    known_format: bool = True
    """Whether this release knows what its headers mean."""
    replay_count: int = 0
    """How often its record was replayed; known when it comes from a ``LetterFilter``."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that failed; none when the event failed before they were known."""
        if self.task is None:
            return ()
        # A name may hold commas, as long as nobody has said that they separate names.
        names = tuple(self.task.split(","))
        return names if len(names) == self.task_count else (self.task,)

    @property
    def marker_key(self) -> str:
        """Key of its marker. Groups on one input topic may have letters with the same id."""
        return f"{self.id}@{self.group}"

    @property
    def possible_task(self) -> bool:
        """Whether the tasks, if any are named, have names that a task can have; else they may be any review text."""
        return all(TASK_NAME.fullmatch(task) for task in self.tasks)

    @property
    def shown_task(self) -> str | None:
        """The task's name, or its length where no task can have it."""
        shown = self.task in (None, NO_TASK) or self.possible_task
        return self.task if shown else f"({len(self.task or '')} characters)"

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
    count = texts.get(PREFIX + "task-count", "")
    return Letter(
        id=identifier,
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        stage=texts.get(PREFIX + "stage", ""),
        reason=texts.get(PREFIX + "class", ""),
        task=texts.get(PREFIX + "task"),
        message=texts.get(KIP_1191 + "message", ""),
        failed_at_ms=_milliseconds(texts.get(PREFIX + "failed-at", "")),
        record=record,
        group=texts.get(KIP_1191 + "group", ""),
        task_count=int(count) if _is_number(count) else 1,
        known_format=texts.get(FORMAT_HEADER, "1") == "1",
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
            (self.tasks, {letter.task, *letter.tasks}),
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
    markers: Markers
    """Of the letters that were replayed."""
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
    """Marker keys of letters of which no further copy matters."""
    _without_value: dict[str, Letter] = field(default_factory=dict)

    def take(self, record: SourceRecord) -> Letter | None:
        """The letter to work on in ``record``, or None, counted."""
        letter = read_letter(record)
        self.other_records += letter is None
        if letter is None or not self.selection.takes(letter):
            return None
        key = letter.marker_key
        self.copies += key in self._seen or key in self._without_value
        if key in self._seen:
            return None
        if (replayed_at := self.markers.replayed_at(letter)) is not None:
            self._seen.add(key)
            self.replayed += 1
            self.younger += (letter.failed_at_ms or 0) > replayed_at
            return None
        if record.value is None:
            self._without_value.setdefault(key, letter)
            return None
        self._without_value.pop(key, None)
        return self._through(letter)

    def rest(self) -> Iterator[Letter]:
        """At the end of the topic: the letters of which no copy has its value."""
        while self._without_value:
            yield self._through(self._without_value.pop(next(iter(self._without_value))))

    def _through(self, letter: Letter) -> Letter:
        self._seen.add(letter.marker_key)
        self.by_class[letter.stage, letter.reason] += 1
        return replace(letter, replay_count=self.markers.counts.get(place(letter), 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _milliseconds(text: str) -> int | None:
    try:
        moment = round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return moment if 0 <= moment < _YEAR_10000_MS else None


def place(letter: Letter) -> str:
    """``topic-partition-offset`` of the record that failed: its default event id."""
    return f"{letter.topic}-{letter.partition}-{letter.offset}"


def why_not(letter: Letter, max_replays: int, group: str) -> Skipped | None:
    """Why ``letter`` cannot be sent again, or None when it can.

    ``max_replays`` is how often a record may be, ``group`` the consumer group that wrote the letters which are meant.
    """
    if not letter.known_format:
        return "newer_format"
    if letter.group != group:
        return "other_group"
    # A record without a value is dropped, never dead-lettered: its topic was too small for it.
    if letter.record.value is None:
        return "value_omitted"
    if letter.replay_count >= max_replays:
        return "replayed_too_often"
    # Such a name may hold the comma that separates names in the header, and so name tasks that have their results.
    return None if letter.possible_task else "impossible_task"


def replayed(letter: Letter, group: str) -> Output:
    """The record to produce to the letter's original topic for the consumer ``group``, stamped by the producer.

    Where the value has no event id, the record's first default id is kept. When the failure came before its tasks were
    known, the tasks stay narrowed to those of an earlier replay; so do the rows of a value that has several.
    """
    record = letter.record
    event_id = _readable(record.headers, EVENT_ID) or b""
    added = {
        EVENT_ID: event_id if 0 < len(event_id.decode()) <= EVENT_ID_CHARS else place(letter).encode(),
        ONLY_TASKS: _readable(record.headers, ONLY_TASKS) if letter.task is None else letter.task.encode(),
        ONLY_ROWS: _readable(record.headers, PREFIX + "rows") or _readable(record.headers, ONLY_ROWS),
        REPLAY_COUNT: str(letter.replay_count + 1).encode(),
        REPLAY_GROUP: group.encode(),
    }
    kept = [
        header
        for header in record.headers
        if not header[0].startswith((PREFIX, KIP_1191, CONNECT, SPRING)) and header[0] not in added
    ]
    headers = (*kept, *((name, value) for name, value in added.items() if value))
    key = None if last_value(record.headers, KEY_ADDED) else record.key
    return Output(letter.topic, key, record.value, headers, letter.partition)


def _readable(headers: Sequence[Header], name: str) -> bytes | None:
    """The value that a worker would read, None when it is not UTF-8, which a worker refuses."""
    value = last_value(headers, name) or b""
    return value if value.decode(errors="ignore").encode() == value else None
