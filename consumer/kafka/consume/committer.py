"""Commits offsets through the consumer, and learns what became of them. The poll thread's, apart from ``ask``."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import KafkaError

    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver


logger = logging.getLogger(__name__)


class Committing(Protocol):
    """What is needed of ``confluent_kafka.Consumer``."""

    def commit(self, *, offsets: list[TopicPartition], asynchronous: Any) -> Any:
        """Commit these positions; raises KafkaException. Unless asynchronous, returns them with their errors."""


class Committer:
    """One asynchronous commit at a time, filtered by assignment and epoch; a last synchronous one when it ends."""

    def __init__(self, observer: KafkaObserver, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._asked: SimpleQueue[Mapping[Partition, tuple[int, int]]] = SimpleQueue()
        self._commits = Commits()
        self._asking = threading.Lock()
        self._settled = True

    @property
    def settled(self) -> bool:
        """Whether all that was asked for is answered. From any thread."""
        return self._settled

    def ask(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        """Commit (epoch, offset) of each partition as long as its epoch is the current one. From any thread."""
        with self._asking:
            self._asked.put(offsets)
            self._settled = False

    def send(self, consumer: Committing, epochs: Mapping[Partition, int]) -> None:
        """Start a commit of what was asked for, unless one is under way."""
        self._collect()
        offsets = self._commits.take(epochs, self._clock())
        with self._asking:
            self._settled = self._asked.empty() and self._commits.idle
        if not offsets:
            return
        try:
            consumer.commit(offsets=_positions(offsets), asynchronous=True)
        except KafkaException as error:
            self._failed(error.args[0])

    def answered(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """The client's ``on_commit``: called inside its poll."""
        errors = [error] if error is not None else [p.error for p in positions if p.error is not None]
        if errors:
            self._failed(errors[0])
        else:
            self._commits.answered(failed=False, now=self._clock())
            self._observer.committed(len(positions))

    def finish(self, consumer: Committing, leaving: Mapping[Partition, int], last: Mapping[Partition, int]) -> bool:
        """Assignments end: commit ``last``, and what was asked for and not yet answered, and wait for the answer.

        Whether all of it is committed now. Otherwise the new owner starts at the commit before: records are repeated,
        none is lost.
        """
        self._collect()
        offsets = {**self._commits.leave(leaving), **last}
        if not offsets:
            return True
        try:
            answered: list[TopicPartition] = consumer.commit(offsets=_positions(offsets), asynchronous=False)
            errors = [position.error for position in answered if position.error is not None]
        except KafkaException as error:
            errors = [error.args[0]]
        if errors:
            self._observer.commit_failed(errors[0].name())
            logger.warning("The last commit of revoked partitions failed: %s", errors[0])
        else:
            self._observer.committed(len(offsets))
        return not errors

    def forget(self, lost: Mapping[Partition, int]) -> bool:
        """Assignments were lost: commit nothing of them. Whether nothing was left to commit."""
        self._collect()
        return not self._commits.leave(lost)

    def begin_anew(self) -> None:
        """Another client takes the place of the one that was asked, whose answers will not come.

        What was asked for before is of epochs that are over.
        """
        self._commits = Commits()

    def _collect(self) -> None:
        while True:
            try:
                offsets = self._asked.get_nowait()
            except Empty:
                return
            for partition, (epoch, offset) in offsets.items():
                self._commits.want(partition, epoch, offset)

    def _failed(self, error: KafkaError) -> None:
        self._commits.answered(failed=True, now=self._clock())
        self._observer.commit_failed(error.name())
        logger.warning("A commit failed (%s); it is tried again while the partitions are ours", error.name())


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number, offset) for p, offset in offsets.items()]


# Offsets on their way to the coordinator: one commit at a time, so that none overtakes a later one.

ANSWER_SECONDS = 60.0
"""A commit without an answer for this long is given up and repeated: librdkafka answers within socket.timeout.ms."""

RETRY_SECONDS = 1.0


class Commits:
    """The offsets wanted, per partition and epoch, and those in flight. Pure; the poll thread owns it."""

    def __init__(self) -> None:
        self._wanted: dict[Partition, tuple[int, int]] = {}
        self._in_flight: dict[Partition, tuple[int, int]] = {}
        # Also when all that was in flight has left meanwhile: its answer must not be taken for that to the next commit.
        self._unanswered = False
        self._sent_at = 0.0
        self._not_before = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted and nothing in flight."""
        return not self._wanted and not self._in_flight

    def want(self, partition: Partition, epoch: int, offset: int) -> None:
        """Commit ``offset`` when possible; within an epoch an offset never replaces a higher one."""
        known = self._wanted.get(partition)
        if known is None or known < (epoch, offset):
            self._wanted[partition] = (epoch, offset)

    def take(self, epochs: Mapping[Partition, int], now: float) -> dict[Partition, int]:
        """Offsets to commit now: only of current epochs, nothing while a commit is in flight or soon after a failure.

        Offsets of other epochs are forgotten.
        """
        if not self._wanted or now < self._not_before or (self._unanswered and now < self._sent_at + ANSWER_SECONDS):
            return {}
        for partition, wanted in self._in_flight.items():
            self.want(partition, *wanted)
        self._in_flight = {p: wanted for p, wanted in self._wanted.items() if epochs.get(p) == wanted[0]}
        self._wanted = {}
        self._unanswered = bool(self._in_flight)
        self._sent_at = now
        return {partition: offset for partition, (_, offset) in self._in_flight.items()}

    def answered(self, *, failed: bool, now: float) -> None:
        """The commit in flight ended. When it ``failed``, even in part, all of it is wanted again, in a second."""
        if failed:
            for partition, wanted in self._in_flight.items():
                self.want(partition, *wanted)
            self._not_before = now + RETRY_SECONDS
        self._in_flight = {}
        self._unanswered = False

    def leave(self, epochs: Mapping[Partition, int]) -> dict[Partition, int]:
        """Offsets of assignments that end, for a last synchronous commit: wanted or not yet answered."""
        last: dict[Partition, int] = {}
        for partition, epoch in epochs.items():
            known = [w for w in (self._wanted.pop(partition, None), self._in_flight.pop(partition, None)) if w]
            offsets = [offset for of_epoch, offset in known if of_epoch == epoch]
            if offsets:
                last[partition] = max(offsets)
        return last
