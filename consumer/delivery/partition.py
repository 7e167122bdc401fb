"""Names of partitions, as the ledger and the Kafka edge speak of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from consumer.events import SourceRecord


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
