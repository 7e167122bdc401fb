"""Lag of the assigned partitions: queried end offset minus committed offset, on a timer.

A thread and a client of its own: statistics and cached watermarks freeze while partitions are paused (librdkafka issue
4996), and a query on the poll thread would block it as long as a broker is slow. The client is a consumer that never
subscribes, so it is no member of the group. Both numbers are those that ``kafka-consumer-groups --describe`` shows, so
records of a transaction that hangs count as lag.

The admin client would ask for all partitions at once, but in confluent-kafka 2.16 its answer to an error of the group's
coordinator (one that is starting) crashes the process now and then.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.events import Partition
from consumer.kafka.clients.errors import librdkafka_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)

INTERVAL_SECONDS = 10.0
REQUEST_SECONDS = 5.0


class LagWatch:
    """Queries the lag of the partitions that ``assigned()`` returns, every ``interval`` seconds."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        group: str,
        assigned: Callable[[], Iterable[Partition]],
        observer: KafkaObserver,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._client = Consumer(
            {**settings, "group.id": group, "enable.auto.commit": False}, logger=librdkafka_logger("lag")
        )
        self._assigned = assigned
        self._observer = observer
        self._interval = interval
        self._ended = threading.Event()
        self.end = self._ended.set
        """``end()``: stop the queries."""
        self.lags: Mapping[Partition, int] = {}
        """Lag in records as of the latest query; replaced, never changed in place."""
        self.thread = threading.Thread(target=self._run, name="rexstream-lag", daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self.lags = self._ask()
            except Exception as error:  # a number on a dashboard must not end a worker
                _log.warning("lag is unknown for now", reason=str(error), fix=_fix(error))
                self.lags = {}
            self._observer.lag(self.lags)
            self._client.poll(0)  # serves librdkafka's log lines; nothing is assigned, so nothing is read
        self._client.close()

    def _ask(self) -> dict[Partition, int]:
        assigned = [TopicPartition(p.topic, p.number) for p in self._assigned()]
        lags = {}
        for committed in self._client.committed(assigned, timeout=REQUEST_SECONDS) if assigned else ():
            partition = Partition(committed.topic, committed.partition)
            try:
                start, end = self._client.get_watermark_offsets(committed, timeout=REQUEST_SECONDS)
            except KafkaException as error:
                _log.info("an offset is unknown", topic=partition.topic, partition=partition.number, reason=str(error))
                continue
            # Nothing committed yet: everything that is still there lies ahead.
            lags[partition] = max(0, end - (committed.offset if committed.offset >= 0 else start))
        return lags


def _fix(error: Exception) -> str | None:
    """What to do when only the group's offsets cannot be read, which also keeps new owners of a partition waiting."""
    if isinstance(error, KafkaException) and error.args[0].code() == KafkaError._TIMED_OUT:
        return (
            "if the brokers are there, a transaction holds the group's offsets back: brokers abort that of a killed "
            "worker after delivery.transaction_timeout_ms; one that lasts is named by 'kafka-transactions.sh "
            "find-hanging' and ended by its 'abort'"
        )
    return None
