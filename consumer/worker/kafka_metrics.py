"""What the Kafka runtime reports, as metrics and log lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from consumer.events import Outcome, Partition, SourceRecord
    from consumer.telemetry.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)


class KafkaMetrics:
    """Implements the runtime's ``KafkaObserver``. Called from its threads."""

    def __init__(self, metrics: Metrics, ended: Callable[[SourceRecord, Outcome], None]) -> None:
        """``ended`` hears of every record whose outputs are durable."""
        self._metrics = metrics
        self._ended = ended

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:
        """The end of an event's journey."""
        self._ended(record, outcome)
        if record.timestamp_ms is not None:
            self._metrics.event_latency("durable", time.time() - record.timestamp_ms / 1000)

    def stale(self, completions: int) -> None:
        """Normal in a rebalance; anything else deserves a look."""
        _log.info("late completions of revoked partitions ignored", completions=completions)

    def stalled(self, seconds: float) -> None:
        """Short waits for room are the normal form of backpressure."""
        self._metrics.stage("hold", seconds)

    def paused(self, reasons: Collection[str]) -> None:
        """Every change is logged: consumption that stops must say why."""
        self._metrics.paused(reasons)
        if reasons:
            _log.info("consumption paused", reasons=sorted(reasons))
        else:
            _log.info("consumption resumed")

    def rebalanced(self, kind: Literal["assigned", "revoked", "lost", "rewound"], partitions: int) -> None:
        """Logged with the partitions by the runtime itself."""
        _log.info("rebalance", kind=kind, partitions=partitions)

    def committed(self, partitions: int) -> None:
        """Too often for a log line above debug."""
        _log.debug("offsets committed", partitions=partitions)

    def commit_failed(self, code: str) -> None:
        """Tried again by the runtime."""
        _log.warning("commit failed", code=code)

    def produce_refused(self, topic: str, code: str) -> None:
        """The output is held and produced again."""
        _log.warning("output refused", topic=topic, code=code)

    def transaction(self, how: Literal["committed", "aborted"], seconds: float, records: int) -> None:
        """Counted; each is too common for a log line."""
        self._metrics.transaction(how)
        _log.debug("transaction", how=how, seconds=round(seconds, 3), records=records)

    def client_error(self, client: str, code: str) -> None:
        """The client reconnects by itself; its own log lines have the details."""
        _log.debug("kafka client error", client=client, code=code)

    def lag(self, lags: Mapping[Partition, int]) -> None:
        """Queried by the runtime on a timer."""
        self._metrics.consumer_lag({(partition.topic, partition.number): lag for partition, lag in lags.items()})
