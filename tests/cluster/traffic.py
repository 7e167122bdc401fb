"""A real Apache Kafka topic that a worker's group reads: records in, lag, and what has been committed."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITIONS = 4


class Traffic:
    """Of the topics reviews.raw, reviews.extracted and reviews.dead, and the group ``rexstream``."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap}
        self._admin = AdminClient(self._bootstrap)
        topics = [NewTopic(name, PARTITIONS, 1) for name in ("reviews.raw", "reviews.extracted", "reviews.dead")]
        for created in self._admin.create_topics(topics).values():
            created.result(30)
        # It asks for offsets as any tool does, and never joins.
        self._group = Consumer({**self._bootstrap, "group.id": "rexstream", "enable.auto.commit": False})
        self._partitions = [TopicPartition("reviews.raw", number) for number in range(PARTITIONS)]

    def send(self, count: int) -> None:
        """Reviews, evenly to all partitions."""
        producer = Producer(self._bootstrap)
        self._produce(producer, count)
        producer.flush(60)

    def send_in_transactions(self, count: int) -> None:
        """A transaction of ``count`` reviews, and an aborted one behind it: both leave markers in every partition."""
        producer = Producer({**self._bootstrap, "transactional.id": f"shop-{uuid.uuid4()}"})
        producer.init_transactions(60)
        ends: list[Callable[[float], None]] = [producer.commit_transaction, producer.abort_transaction]
        for end in ends:
            producer.begin_transaction()
            self._produce(producer, count)
            producer.flush(60)
            end(60)

    def expire(self) -> None:
        """What retention does: every record that there is now is deleted, and offsets go on from where they are."""
        ends = [TopicPartition(each.topic, each.partition, -1) for each in self._partitions]
        for deleted in self._admin.delete_records(ends).values():
            deleted.result(30)

    def committed(self) -> int:
        """Sum of the group's offsets; where there is none, the partition's beginning counts."""
        return sum(begin if offset is None else offset for offset, begin, _ in self._offsets())

    def lag(self) -> int:
        """Ends of the partitions less the group's offsets, as KEDA computes it; from the beginning without one."""
        return sum(end - (begin if offset is None else offset) for offset, begin, end in self._offsets())

    def without_offset(self) -> int:
        """Partitions that the group has no offset of."""
        return sum(offset is None for offset, _, _ in self._offsets())

    def close(self) -> None:
        """Leave the cluster."""
        self._group.close()

    def _offsets(self) -> list[tuple[int | None, int, int]]:
        """Of each partition the group's offset, the beginning and the end."""
        committed = self._group.committed(self._partitions, timeout=30)
        return [
            (each.offset if each.offset >= 0 else None, *self._group.get_watermark_offsets(each, timeout=30))
            for each in committed
        ]

    @staticmethod
    def _produce(producer: Producer, count: int) -> None:
        for number in range(count):
            value = json.dumps({"text": f"屏幕清晰，发货快 {number}"}).encode()
            producer.produce("reviews.raw", value, key=str(number).encode(), partition=number % PARTITIONS)
            producer.poll(0)
