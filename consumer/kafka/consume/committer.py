"""Commits offsets through the consumer: one commit in flight at a time, so that none overtakes a later one.

The poll thread owns the ``Committer``; only ``request`` and ``all_answered`` are for other threads.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Consumer, KafkaError

    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)

ANSWER_SECONDS = 60.0
"""A commit without an answer for this long is given up and repeated: librdkafka answers within socket.timeout.ms."""

RETRY_SECONDS = 1.0


class Committer:
    """Asynchronous commits of the offsets of current epochs, and a last synchronous one when assignments end.

    Offsets are (epoch, offset) pairs: an offset is only sent while its epoch is that of the current assignment, and
    within an epoch it never replaces a higher one.
    """

    def __init__(self, observer: KafkaObserver, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()  # around what is wanted and in flight; never held during a call of the client
        self.reset()

    def reset(self) -> None:
        """Forget all commits: another client takes over, and the old one's answers will not come.

        The offsets that were requested belong to epochs that have ended.
        """
        self._wanted: dict[Partition, tuple[int, int]] = {}
        self._in_flight: dict[Partition, tuple[int, int]] = {}
        # No commit is sent before this time, so none while one is unanswered, even if all its partitions have left
        # meanwhile: its answer must not be taken for that to the next commit.
        self._not_before = -math.inf

    @property
    def all_answered(self) -> bool:
        """Whether nothing is wanted and nothing in flight. From any thread."""
        with self._lock:
            return not self._wanted and not self._in_flight

    def request(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        """Commit (epoch, offset) of each partition as long as its epoch is the current one. From any thread."""
        with self._lock:
            self._want(offsets)

    def send(self, consumer: Consumer, epochs: Mapping[Partition, int]) -> None:
        """Start a commit of what is wanted, unless one is in flight or failed just now.

        Offsets of other than the current ``epochs`` are forgotten.
        """
        now = self._clock()
        # Without the lock: what is requested meanwhile is sent in the next round.
        if not self._wanted or now < self._not_before:
            return
        with self._lock:
            self._want(self._in_flight)
            self._in_flight = {p: wanted for p, wanted in self._wanted.items() if epochs.get(p) == wanted[0]}
            self._wanted = {}
        if self._in_flight:
            self._not_before = now + ANSWER_SECONDS
            offsets = {partition: offset for partition, (_, offset) in self._in_flight.items()}
            try:
                consumer.commit(offsets=_positions(offsets), asynchronous=True)
            except KafkaException as error:
                self._answered(error.args[0])

    def on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """The client's ``on_commit`` callback, called inside its poll: the commit in flight ended."""
        errors = [error, *(position.error for position in positions)]
        failed = next((each for each in errors if each is not None), None)
        self._answered(failed)
        if failed is None:
            self._observer.committed(len(positions))

    def commit_last(self, consumer: Consumer, leaving: Mapping[Partition, int], last: Mapping[Partition, int]) -> bool:
        """Assignments end: commit ``last``, and what was requested and not yet answered, and wait for the answer.

        Returns whether all of it is committed. Otherwise the new owner starts at the commit before: records are
        repeated, none is lost.
        """
        offsets = {**self._leave(leaving), **last}
        if not offsets:
            return True
        try:
            answered = consumer.commit(offsets=_positions(offsets), asynchronous=False)
            errors = [position.error for position in answered or () if position.error is not None]
        except KafkaException as error:
            errors = [error.args[0]]
        if errors:
            self._observer.commit_failed(errors[0].name())
            _log.warning(
                "the last commit of revoked partitions failed",
                assignments=list(map(str, offsets)),
                reason=str(errors[0]),
            )
        else:
            self._observer.committed(len(offsets))
        return not errors

    def forget(self, lost: Mapping[Partition, int]) -> bool:
        """Assignments were lost: commit nothing of them. Returns whether nothing was left to commit."""
        return not self._leave(lost)

    def _want(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        for partition, offset in offsets.items():
            self._wanted[partition] = max(offset, self._wanted.get(partition, offset))

    def _leave(self, epochs: Mapping[Partition, int]) -> dict[Partition, int]:
        """Forget assignments that end; returns their furthest offsets that were wanted or not yet answered."""
        last: dict[Partition, int] = {}
        with self._lock:
            for known in (self._wanted, self._in_flight):
                for partition, epoch in epochs.items():
                    of_epoch, offset = known.pop(partition, (None, 0))
                    if of_epoch == epoch:
                        last[partition] = max(offset, last.get(partition, 0))
        return last

    def _answered(self, error: KafkaError | None) -> None:
        """The commit in flight ended. When it failed, even in part, all of it is wanted again, in a second."""
        with self._lock:
            if error is not None:
                self._want(self._in_flight)
            self._in_flight = {}
        self._not_before = -math.inf
        if error is not None:
            self._not_before = self._clock() + RETRY_SECONDS
            self._observer.commit_failed(error.name())
            _log.warning("a commit failed; it is tried again while the partitions are ours", code=error.name())


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number, offset) for p, offset in offsets.items()]
