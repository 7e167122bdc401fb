"""Commits offsets through the consumer, and learns what became of them. The poll thread's, apart from ``ask``."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import KafkaException, TopicPartition

from consumer.kafka.consume.commits import Commits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import KafkaError

    from consumer.delivery.partition import Partition
    from consumer.kafka.observer import EdgeObserver

logger = logging.getLogger(__name__)


class Committing(Protocol):
    """What is needed of ``confluent_kafka.Consumer``."""

    def commit(self, *, offsets: list[TopicPartition], asynchronous: Any) -> Any:
        """Commit these positions; raises KafkaException. Unless asynchronous, returns them with their errors."""


class Committer:
    """One asynchronous commit at a time, filtered by assignment and epoch; a last synchronous one when it ends."""

    def __init__(self, observer: EdgeObserver, clock: Callable[[], float] = time.monotonic) -> None:
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
