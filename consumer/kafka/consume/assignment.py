"""Epochs of the assigned partitions, and polled messages as the rest of the worker sees them."""

from __future__ import annotations

import itertools
import logging
import operator
import threading
from typing import TYPE_CHECKING, Protocol, cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE, TopicPartition

from consumer.events import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from confluent_kafka import Message

    from consumer.events import Header, Partition
    from consumer.kafka.clients.observer import KafkaObserver


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


# The headers of a polled message, of which the client may be unable to give any.

_call = operator.methodcaller("headers")


def readable_headers(message: Message) -> tuple[Header, ...] | None:
    """The headers as they came; None when a name is not UTF-8. Ask a message once only.

    The client decodes names as UTF-8, and where one is not it returns a list together with an exception. Python looks
    for that after a general call and raises SystemError, but not after a method call in a loop that it has optimised:
    there the exception would come up anywhere later. A call through ``operator`` is never optimised.
    """
    try:
        headers = _call(message)
    except (SystemError, UnicodeDecodeError):
        return None
    # The library's annotation also allows what it only accepts on the way in.
    return tuple(cast("list[Header]", headers or []))


# Which partitions are paused, and why.
#
# Resuming a partition that was not paused rewinds its position (librdkafka issues 4637 and 4686), so the exact set of
# paused partitions is kept, and only those are resumed.


class Pausable(Protocol):
    """What is needed of ``confluent_kafka.Consumer``."""

    def pause(self, partitions: list[TopicPartition]) -> None:
        """Stop fetching these."""

    def resume(self, partitions: list[TopicPartition]) -> None:
        """Fetch these again."""


class Pauses:
    """Reasons may come and go from any thread; only the poll thread applies them."""

    def __init__(self, observer: KafkaObserver) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._reasons: frozenset[str] = frozenset()
        self._paused: set[Partition] = set()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons that stand now, in order."""
        return tuple(sorted(self._reasons))

    def want(self, reason: str) -> None:
        """Consumption must stop for ``reason``."""
        self._change(add=frozenset({reason}))

    def withdraw(self, reason: str) -> None:
        """``reason`` no longer stands."""
        self._change(remove=frozenset({reason}))

    def apply(self, consumer: Pausable, assigned: Collection[Partition]) -> None:
        """Pause all that is assigned, or resume all that was paused. The poll thread's."""
        if self._reasons:
            self.assigned(consumer, assigned)
        elif self._paused:
            consumer.resume(_partitions(self._paused))
            self._paused.clear()

    def assigned(self, consumer: Pausable, partitions: Iterable[Partition]) -> None:
        """These were assigned just now: paused at once while a reason stands. The poll thread's."""
        missing = {partition for partition in partitions if partition not in self._paused}
        if self._reasons and missing:
            consumer.pause(_partitions(missing))
            self._paused |= missing

    def gone(self, consumer: Pausable, partitions: Iterable[Partition]) -> None:
        """These are about to be unassigned. The poll thread's.

        The client keeps a pause beyond the assignment: it would lie on the partition when it comes back, known to
        nobody.
        """
        if leaving := self._paused.intersection(partitions):
            consumer.resume(_partitions(leaving))
            self._paused -= leaving

    def forget(self) -> None:
        """The client is of no use any more, and its pauses are gone with it. The poll thread's."""
        self._paused.clear()

    def _change(self, add: frozenset[str] = frozenset(), remove: frozenset[str] = frozenset()) -> None:
        with self._lock:
            reasons = (self._reasons | add) - remove
            if reasons == self._reasons:
                return
            self._reasons = reasons
            self._observer.paused(reasons)


def _partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.number) for partition in sorted(partitions)]
