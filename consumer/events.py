"""What travels through a worker: the Kafka record, the review event in it, and the ways in which input can be bad."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Header = tuple[str, bytes | None]
"""A Kafka header. Headers are a list: names repeat, values may be null or not UTF-8."""

TaskKind = Literal["extract", "classify", "multi_classify"]
Stage = Literal["decode", "validate", "extract", "produce"]


@dataclass(frozen=True, slots=True)
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
        """Bytes that this record holds in memory: key, value and header values."""
        return len(self.key or b"") + len(self.value or b"") + sum(len(v or b"") for _, v in self.headers)


@dataclass(frozen=True, slots=True)
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


class BadInput(Exception):  # noqa: N818 - named for what it is; it is not a fault of the program
    """An event that can never be processed, whatever is retried. It becomes a dead letter.

    ``reason`` is a CamelCase slug that is safe as a metric label and a header (``InvalidJson``); the message names the
    thing, the value's position or size and the way out, and never holds review text.
    """

    def __init__(self, stage: Stage, reason: str, message: str) -> None:
        super().__init__(message)
        self.stage: Stage = stage
        self.reason = reason
        self.message = message
        self.model_version: str | None = None
        """The model version that had answered so far, where the text met a limit on the way."""
