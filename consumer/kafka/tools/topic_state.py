"""What brokers say of topics beside their records: the ids that they gave them, and where transactions are open.

Functions raise KafkaException.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from consumer.events import Partition

if TYPE_CHECKING:
    from collections.abc import Collection

    from confluent_kafka.admin import AdminClient

MARKED_SECONDS = 2.0
"""Brokers mark the end of a transaction in its topics a moment after they have answered its commit."""

_RETRY_SECONDS = 0.1
_LATEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def topic_ids(admin: AdminClient, topics: Collection[str], timeout: float) -> dict[str, str]:
    """The id that each topic got when it was created; one that is not there is left out. ``timeout``: seconds."""
    found = {}
    for topic, answer in admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=timeout).items():
        try:
            found[topic] = str(answer.result().topic_id)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return found


def held_back(admin: AdminClient, partitions: Collection[Partition], timeout: float) -> list[Partition]:
    """Those with a transaction that is open: nobody who reads committed sees its records, nor any behind the first."""
    asked: Any = {TopicPartition(*place): _LATEST for place in partitions}
    deadline = time.monotonic() + MARKED_SECONDS
    while True:
        ends = []
        for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
            found = admin.list_offsets(asked, isolation_level=level, request_timeout=timeout)
            ends.append({Partition(each.topic, each.partition): at.result().offset for each, at in found.items()})
        held = [place for place, end in ends[0].items() if end > ends[1][place]]
        if not held or time.monotonic() >= deadline:
            return held
        time.sleep(_RETRY_SECONDS)
