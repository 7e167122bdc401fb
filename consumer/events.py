"""The values that travel through a worker: the Kafka record, the review event in it, and the outcome of both.

Plain values, which every other package may import: poll thread, event loop and release thread hand them on. Nobody
changes one, but for ``Work``. Those that every event makes are not frozen all the same: making a frozen one takes three
to five times as long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Header = tuple[str, bytes | None]
"""A Kafka header. Headers are a list: names repeat, values may be null or not UTF-8."""

TaskKind = Literal["extract", "classify", "multi_classify"]
Stage = Literal["decode", "validate", "extract", "produce"]


EARLIEST_MS, LATEST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, in milliseconds since 1970: many readers of a result, Avro's for Python among them, raise for a
time beyond."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """``text`` itself where it can be written as UTF-8, otherwise with U+FFFD in place of every lone surrogate.

    Half of a surrogate pair is what text cut at a UTF-16 unit ends with. Every offset stays where it was.
    """
    try:
        text.encode()  # says it in a seventh of the time of a search
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


HEADER_OVERHEAD = 150
"""A header beside its name and value: a pair and two objects. A record of 1 MB may hold half a million empty ones."""


def header_bytes(headers: Sequence[Header]) -> int:
    """Bytes of names and values."""
    size = 0
    for name, value in headers:  # for every output; a generator in ``sum`` takes twice as long
        size += len(name.encode()) + len(value or b"")
    return size


def _held(headers: Sequence[Header]) -> int:
    return HEADER_OVERHEAD * len(headers) + header_bytes(headers)


@dataclass(slots=True)
class SourceRecord:
    """One record as it was polled. ``epoch`` numbers the assignment of its partition that delivered it."""

    topic: str
    partition: int
    offset: int
    epoch: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int | None
    """Broker or producer timestamp, milliseconds since 1970; None when the record has none."""
    fetched_at: float
    """Monotonic clock, seconds, when the poll thread received it."""
    log_append_time: bool = False
    """Whether the timestamp is the broker's (LogAppendTime), and not its producer's (CreateTime)."""

    @property
    def size(self) -> int:
        """Bytes that this record holds in memory: key, value and headers."""
        size = len(self.key or b"") + len(self.value or b"")
        return size + _held(self.headers) if self.headers else size


class Partition(NamedTuple):
    """One partition of one topic, as the ledger and the Kafka runtime name it."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"

    @classmethod
    def of(cls, record: SourceRecord) -> Partition:
        """The partition that ``record`` was read from."""
        return cls(record.topic, record.partition)


class Place(NamedTuple):
    """Which record it was, in which epoch of its partition."""

    partition: Partition
    epoch: int
    offset: int

    @classmethod
    def of(cls, record: SourceRecord) -> Place:
        """The place of ``record``."""
        new = tuple.__new__  # for every event: a call of the classes takes three times as long
        return new(cls, (new(Partition, (record.topic, record.partition)), record.epoch, record.offset))


@dataclass(eq=False, slots=True)
class Work:
    """One event, from its admission until its outputs are durable: what it may take, and what its tasks share."""

    place: Place
    number: int
    """In order of arrival."""
    used: int
    """Bytes that it accounts for; more than ``granted`` while it waits."""
    granted: int = 0
    """Bytes of the budget that it holds."""
    is_admitted: bool = False
    deadline: float = 0.0
    """Seconds of the clock. It orders the work; nothing ends at it."""
    tokens: int = 0
    """Tokens of its windows that are at the dispatcher."""
    sent: int = 0
    """Tokens of all windows that it has sent."""
    windows: int = 0
    """Of all levels that it began, sent or not."""
    key: bytes | None = None
    """The record's."""
    version: str = ""
    """Of the model that answered its last window, in whatever task; empty before the first answer."""
    variant: object = None
    """The way to the model that it goes, where a worker has several (``worker.variants``); None before its first window
    and where there is one."""


class Milliseconds(int):
    """A time since 1970 whose unit is known: Avro's reader converts it by its logical type."""

    __slots__ = ()


class LocalMilliseconds(Milliseconds):
    """One that counts from 1970 in a zone that nobody said, as a column ``DATETIME`` does: UTC, unless a mapping knows
    better.
    """

    __slots__ = ()


@dataclass(slots=True)
class ReviewEvent:
    """A decoded review. ``schema`` is an inline schema (still unchecked), ``tasks`` the event's own choice."""

    event_id: str
    text: str
    tasks: tuple[str, ...] | None = None
    schema: Mapping[str, Any] | None = None
    kind: TaskKind = "extract"
    product_id: str | None = None
    source: str | None = None
    language: str | None = None
    created_at: int | None = None
    """Milliseconds since 1970."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What of it could not be kept; each result says so. No text of the review."""
    carries_headers: bool = True
    """Whether its record's headers go on to its results; not if there are too many."""
    task: str | None = None
    """A field of its own called ``task``, where it has no ``tasks``: a slip of the pen, if a task has that name."""


class BadInput(Exception):  # noqa: N818 - named for what it is; it is not a fault of the program
    """An event that can never be processed, whatever is retried. It becomes a dead letter.

    ``reason`` is a CamelCase slug that is safe as a metric label and a header (``InvalidJson``); the message names the
    thing, the value's position or size and the way out, and never holds review text.
    """

    def __init__(self, stage: Stage, reason: str, message: str, model_version: str | None = None) -> None:
        super().__init__(message)
        self.stage: Stage = stage
        self.reason = reason
        self.message = message
        self.model_version = model_version
        """The model version that had answered before; None where no window was answered."""


@dataclass(slots=True)
class Output:
    """One record to produce: a result or a dead letter.

    ``partition`` is the input's partition number. It is kept where ``topic`` has as many partitions as the input topic;
    elsewhere, and when it is None, the key decides (murmur2). ``timestamp_ms`` None lets the producer stamp the record.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    partition: int | None = None
    timestamp_ms: int | None = None
    row: int | None = None
    """Of a result: its row's number, in a record of several."""
    model_version: str | None = None
    """Of a result: the model's that answered."""
    _held: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return len(self.key or b"") + len(self.value or b"") + header_bytes(self.headers)

    @property
    def held_bytes(self) -> int:
        """Bytes that this output holds in memory: value, headers and what they are kept in."""
        if not self._held:  # it is asked for when the output is made, and when its event has all of them
            self._held = 1000 + len(self.value or b"") + _held(self.headers)
        return self._held


@dataclass(slots=True)
class Outcome:
    """Everything that one record's processing publishes: results and dead letters.

    ``dropped`` (a null value, a replay for another group) publishes nothing. ``done`` without an output would be a
    silent loss, so it raises ValueError, as does ``dropped`` with one.
    """

    kind: Literal["done", "dropped"]
    outputs: tuple[Output, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "done") != bool(self.outputs):
            raise ValueError(
                f"An outcome {self.kind!r} with {len(self.outputs)} outputs: a done record publishes at least one "
                "result or dead letter, a dropped one publishes nothing."
            )
