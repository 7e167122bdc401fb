"""The hooks of the Kafka runtime for metrics. Each may be called from any of its threads, and must be quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from consumer.events import Outcome, Partition, SourceRecord


class KafkaObserver(Protocol):
    """Implemented by ``telemetry.metrics.Metrics``, and by tests that count."""

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:
        """Every output of ``record`` is acknowledged by the brokers."""

    def stale(self, completions: int) -> None:
        """Outcomes of so many records came after their partition was revoked or its epoch ended, and were ignored."""

    def stalled(self, seconds: float) -> None:
        """Intake waited because the in-flight bounds were reached."""

    def paused(self, reasons: Mapping[str, Collection[str]]) -> None:
        """All the reasons for which consumption is paused now, with their input topics; none when all go on."""

    def rebalanced(self, kind: Literal["assigned", "revoked", "lost", "rewound"], partitions: int) -> None:
        """Assignments began or ended; ``rewound``: a partition's position went back, which starts a new epoch."""

    def committed(self, partitions: int) -> None:
        """The offsets of so many partitions were committed."""

    def commit_failed(self, code: str) -> None:
        """A commit failed and is tried again while the partitions are ours."""

    def produce_refused(self, topic: str, code: str) -> None:
        """An output was refused; it is held and produced again, or becomes a dead letter when it is too large."""

    def transaction(self, how: Literal["committed", "aborted"], seconds: float, records: int) -> None:
        """A transaction with the outcomes of ``records`` input records ended, ``seconds`` after it began."""

    def client_error(self, client: str, code: str) -> None:
        """The ``consumer`` or the ``producer`` client reported an error."""

    def matched(self, topics: Mapping[str, int]) -> None:
        """How many topics each pattern among the inputs matches now."""

    def lag(self, lags: Mapping[Partition, int]) -> None:
        """Records between the committed offset and the end, for every assigned partition that could be queried."""
