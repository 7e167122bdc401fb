"""The partitions assigned to this worker: their epochs, their pauses, and their records as the worker sees them.

The poll thread owns all of it. An epoch numbers one assignment of one partition, so that a late result or commit is not
taken for one of the current assignment.
"""

from __future__ import annotations

import itertools
import operator
import threading
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE, TopicPartition

from consumer.config.inputs import InputOf
from consumer.events import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka import Consumer, Message

    from consumer.delivery.done_note import Done
    from consumer.events import Header, Partition
    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)


class Assignment:
    """Every assignment of a partition has an epoch number of its own, never used twice by this process."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._next: dict[Partition, int] = {}
        self.done: dict[Partition, Done] = {}
        """What was done before the epoch began, of partitions where some of it is still to be passed over."""
        self.epochs: Mapping[Partition, int] = {}
        """Epoch of each partition assigned now; replaced, never changed in place, so that other threads may read it."""
        self.leader_epochs: dict[Partition, int] = {}
        """The leader epoch of the last record read of each partition since its latest epoch here began; kept when that
        ends. Until all that is noted as done is passed, that of the note, if it has one: commits name the rest of it.
        From any thread. With the commit of an offset, it shows the next reader a log that lost its end."""

    def begin(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Begin an epoch of each of these partitions; returns them."""
        begun = {partition: next(self._numbers) for partition in partitions}
        self.epochs = {**self.epochs, **begun}
        for partition in begun:
            self._next.pop(partition, None)
            self.done.pop(partition, None)
            self.leader_epochs.pop(partition, None)
        return begun

    def pass_over(self, partition: Partition, position: int, done: Done) -> None:
        """The epoch that has just begun reads from ``position`` on, and not what is ``done`` behind it.

        Where it begins before ``position`` all the same, as in a topic that was made anew, its position ``goes_back``,
        and nothing is passed over.
        """
        self._next[partition] = position
        self.done[partition] = done
        if done.leader_epoch is not None:
            self.leader_epochs[partition] = done.leader_epoch

    def is_done(self, partition: Partition, offset: int, message: Message) -> bool:
        """Whether the record of ``message`` is to be passed over. Asked in the order of offsets."""
        done = self.done.get(partition)
        if done is None:
            return False
        kind, timestamp = message.timestamp()
        if done.behind(offset) is None:
            del self.done[partition]
        return done.names(offset, None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp)

    def end(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """End the epochs of these partitions, where they are assigned; returns them."""
        left = dict(self.epochs)
        ended = {partition: left.pop(partition) for partition in partitions if partition in left}
        self.epochs = left
        for partition in ended:
            self.done.pop(partition, None)
        return ended

    def goes_back(self, partition: Partition, offset: int, leader_epoch: int | None = None) -> bool:
        """Whether ``offset`` lies before what this epoch has reached already: its position was moved back.

        So it is taken, too, where the record there shows that the log is not the one of which it is noted what is done.
        """
        if offset < self._next.get(partition, 0):
            return True
        done = self.done.get(partition) if self.done else None
        return done is not None and done.is_of_another_log(offset, leader_epoch)

    def reached(self, partition: Partition, position: int, leader_epoch: int | None = None) -> None:
        """The current epoch has delivered all before ``position``: a record, or the end of the partition."""
        if position > self._next.get(partition, 0):
            self._next[partition] = position
            if leader_epoch is not None and partition not in self.done:
                self.leader_epochs[partition] = leader_epoch


def source_record(message: Message, partition: Partition, epoch: int, now: float) -> SourceRecord:
    """The record in ``message``; ``now`` is the monotonic time of its arrival in seconds."""
    kind, timestamp = message.timestamp()
    headers = readable_headers(message)
    if headers is None:
        # A name that is not UTF-8 cannot be produced either, so the record goes on without headers.
        _log.warning(
            "a header name is not UTF-8; the record is processed without its headers",
            topic=partition.topic,
            partition=partition.number,
            offset=message.offset(),
        )
    return SourceRecord(
        partition.topic,
        partition.number,
        message.offset() or 0,
        epoch,
        message.key(),
        message.value(),
        headers or (),
        None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        now,
        kind == TIMESTAMP_LOG_APPEND_TIME,
    )


_headers = operator.methodcaller("headers")


def readable_headers(message: Message) -> tuple[Header, ...] | None:
    """The headers of a polled message as they came; None when a name is not UTF-8. Ask a message once only.

    The client decodes names as UTF-8, and where one is not it returns a list together with an exception. Python looks
    for that after a general call and raises SystemError, but not after a method call in a loop that it has optimised:
    there the exception would come up anywhere later. A call through ``operator`` is never optimised.
    """
    try:
        headers = _headers(message)
    except (SystemError, UnicodeDecodeError):
        return None
    return tuple(headers) if headers else ()


BACKPRESSURE = "backpressure"
"""Reason of the pause while the in-flight bounds are reached."""

DRAINING = "draining"
"""Reason of the pause while a worker drains."""


class Pauses:
    """Which partitions are paused, and why. Reasons may come and go from any thread; the poll thread applies them.

    Each reason pauses some of the inputs, a pattern with all its topics. Resuming a partition that was not paused
    rewinds its position (librdkafka issues 4637 and 4686), so the exact set of paused partitions is kept, and only
    those are resumed.
    """

    def __init__(self, observer: KafkaObserver, inputs: Iterable[str]) -> None:
        self._observer = observer
        self.input_of = InputOf(inputs)
        self._inputs = frozenset(self.input_of.of)
        """The input, a name or a pattern, to which a topic belongs."""
        self._lock = threading.Lock()
        self._paused: set[Partition] = set()
        self.reasons: Mapping[str, frozenset[str]] = {}
        """Why consumption is paused now, and of which inputs; replaced, never changed in place."""
        self.topics: frozenset[str] = frozenset()
        """The inputs that are paused, for whatever reasons."""

    def pause(self, reason: str, topics: Iterable[str] | None = None) -> None:
        """Stop the inputs of these topics (None: all inputs) for ``reason``, and no others. From any thread."""
        inputs = self._inputs if topics is None else frozenset(map(self.input_of.__getitem__, topics))
        with self._lock:
            self._replace(reason, inputs)

    def resume(self, reason: str) -> None:
        """Withdraw ``reason``; topics for which it was the last go on. From any thread."""
        with self._lock:
            self._replace(reason, frozenset())

    def apply(self, consumer: Consumer, assigned: Iterable[Partition]) -> None:
        """Pause those of ``assigned`` whose topic is paused, and resume what else was paused."""
        topics = self.topics
        if topics:
            self._pause(consumer, assigned, topics)
        if self._paused:
            self.unassign(consumer, [each for each in self._paused if self.input_of[each.topic] not in topics])

    def assign(self, consumer: Consumer, partitions: Iterable[Partition]) -> None:
        """Pause those of ``partitions``, which were assigned just now, whose topic is paused."""
        self._pause(consumer, partitions, self.topics)

    def unassign(self, consumer: Consumer, partitions: Iterable[Partition]) -> None:
        """Resume those of ``partitions``, about to be unassigned, that are paused.

        The client keeps a pause beyond the assignment: the partition would still be paused when it is assigned again,
        and missing from the set of paused partitions.
        """
        if leaving := self._paused.intersection(partitions):
            consumer.resume(_partitions(leaving))
            self._paused -= leaving

    def forget(self) -> None:
        """Forget what is paused: the client is replaced, and its pauses are gone with it."""
        self._paused.clear()

    def _pause(self, consumer: Consumer, partitions: Iterable[Partition], topics: frozenset[str]) -> None:
        if missing := {each for each in partitions if self.input_of[each.topic] in topics} - self._paused:
            consumer.pause(_partitions(missing))
            self._paused |= missing

    def _replace(self, reason: str, topics: frozenset[str]) -> None:
        if topics != self.reasons.get(reason, frozenset()):
            others = {other: paused for other, paused in self.reasons.items() if other != reason}
            self.reasons = {**others, reason: topics} if topics else others
            self.topics = frozenset().union(*self.reasons.values())
            self._observer.paused(self.reasons)


def _partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.number) for partition in sorted(partitions)]
