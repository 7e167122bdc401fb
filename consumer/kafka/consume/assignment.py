"""Epochs of the assigned partitions, and polled messages as the rest of the worker sees them."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE

from consumer.events import SourceRecord
from consumer.kafka.consume.headers import readable_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka import Message

    from consumer.delivery.partition import Partition
    from consumer.events import Header

logger = logging.getLogger(__name__)


class Assignment:
    """Every assignment of a partition has an epoch number of its own, never used twice by this process."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._epochs: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}

    @property
    def epochs(self) -> Mapping[Partition, int]:
        """Epoch of each partition assigned now; replaced, never changed in place, so that other threads may read it."""
        return self._epochs

    def begin(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """These partitions are ours from now on; returns their new epochs."""
        begun = {partition: next(self._numbers) for partition in partitions}
        self._epochs = {**self._epochs, **begun}
        for partition in begun:
            self._next.pop(partition, None)
        return begun

    def end(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """These are not; returns the epochs that ended."""
        left = dict(self._epochs)
        ended = {partition: left.pop(partition) for partition in partitions if partition in left}
        self._epochs = left
        return ended

    def goes_back(self, partition: Partition, offset: int) -> bool:
        """Whether ``offset`` lies before what this epoch has behind it already: its position was moved back."""
        return offset < self._next.get(partition, 0)

    def delivered(self, partition: Partition, offset: int) -> None:
        """``offset`` was delivered in the current epoch."""
        self._next[partition] = offset + 1

    def reached(self, partition: Partition, position: int) -> None:
        """The current epoch came to the end of its partition, perhaps without a record."""
        self._next[partition] = max(position, self._next.get(partition, 0))


def source_record(message: Message, partition: Partition, epoch: int, now: float) -> SourceRecord:
    """The record in ``message``; ``now`` is the monotonic time of its arrival in seconds."""
    kind, timestamp = message.timestamp()
    return SourceRecord(
        topic=partition.topic,
        partition=partition.number,
        offset=message.offset() or 0,
        epoch=epoch,
        key=message.key(),
        value=message.value(),
        headers=_headers(message),
        timestamp_ms=None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        fetched_at=now,
        log_append_time=kind == TIMESTAMP_LOG_APPEND_TIME,
    )


def _headers(message: Message) -> tuple[Header, ...]:
    headers = readable_headers(message)
    if headers is None:
        # No such name can be passed on either, so the record goes on without headers rather than ending the worker.
        logger.warning(
            "%s-%s offset %s: a header name is not UTF-8; the record is processed without its headers",
            message.topic(),
            message.partition(),
            message.offset(),
        )
        return ()
    return headers
