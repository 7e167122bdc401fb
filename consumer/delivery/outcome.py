"""What one source record turned into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from consumer.events import Header, SourceRecord


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that one record's processing publishes, one output per task.

    ``dropped`` (a null value) publishes nothing. ``done`` without an output would be a silent loss, so it raises
    ValueError, as does ``dropped`` with one.
    """

    kind: Literal["done", "dropped"]
    outputs: tuple[Output, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "done") != bool(self.outputs):
            raise ValueError(
                f"An outcome {self.kind!r} with {len(self.outputs)} outputs: a done record publishes at least one "
                "result or dead letter, a dropped one publishes nothing."
            )


# Names of partitions, as the ledger and the Kafka runtime speak of them.


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"

    @classmethod
    def of(cls, record: SourceRecord) -> Partition:
        """The partition that ``record`` was read from."""
        return cls(record.topic, record.partition)
