"""Lag of the assigned partitions: queried end offset minus committed offset, on a timer.

A thread and a client of its own: statistics and cached watermarks freeze while partitions are paused (librdkafka issue
4996), and a query on the poll thread would block it as long as a broker is slow. The client is not a group member. One
request a broker asks for all partitions, one more for the group's offsets; both are the numbers that
``kafka-consumer-groups --describe`` shows, so records of a transaction that hangs count as lag.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, only not re-exported

from consumer.delivery.partition import Partition
from consumer.kafka.librdkafka_log import librdkafka_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.kafka.observer import EdgeObserver

INTERVAL_SECONDS = 10.0
REQUEST_SECONDS = 5.0
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

logger = logging.getLogger(__name__)


class LagWatch:
    """Asks every ``interval`` seconds for the partitions that ``assigned()`` names."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        group: str,
        assigned: Callable[[], Iterable[Partition]],
        observer: EdgeObserver,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._client = AdminClient(dict(settings), logger=librdkafka_logger("lag"))
        self._group = group
        self._assigned = assigned
        self._observer = observer
        self._interval = interval
        self._ended = threading.Event()
        self.lags: Mapping[Partition, int] = {}
        """Lag in records as last asked; replaced, never changed in place."""
        self.thread = threading.Thread(target=self._run, name="rexstream-lag", daemon=True)

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self.lags = self._ask()
            except Exception as error:  # a number on a dashboard must not end a worker
                logger.warning("Lag is unknown for now: %s", error)
                self.lags = {}
            self._observer.lag(self.lags)
            self._client.poll(0)  # serves librdkafka's log lines

    def _ask(self) -> dict[Partition, int]:
        partitions = [TopicPartition(p.topic, p.number) for p in self._assigned()]
        if not partitions:
            return {}
        committed = self._committed(partitions)
        ends = self._offsets(partitions, LATEST)
        # Nothing committed yet: everything that is still there lies ahead.
        starts = self._offsets([p for p in partitions if Partition(p.topic, p.partition) not in committed], EARLIEST)
        return {p: max(0, end - {**starts, **committed}.get(p, end)) for p, end in ends.items()}

    def _committed(self, partitions: list[TopicPartition]) -> dict[Partition, int]:
        request = [ConsumerGroupTopicPartitions(self._group, partitions)]
        (future,) = self._client.list_consumer_group_offsets(request, request_timeout=REQUEST_SECONDS).values()
        answer = future.result(timeout=2 * REQUEST_SECONDS).topic_partitions
        return {Partition(p.topic, p.partition): p.offset for p in answer if p.error is None and p.offset >= 0}

    def _offsets(self, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[Partition, int]:
        if not partitions:
            return {}
        futures = self._client.list_offsets(dict.fromkeys(partitions, spec), request_timeout=REQUEST_SECONDS)
        offsets = {}
        for partition, future in futures.items():
            try:
                answer = future.result(timeout=2 * REQUEST_SECONDS)
                offsets[Partition(partition.topic, partition.partition)] = answer.offset
            except KafkaException as error:
                logger.info("Offset of %s-%d is unknown: %s", partition.topic, partition.partition, error)
        return offsets
