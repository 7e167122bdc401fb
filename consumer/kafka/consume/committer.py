"""Commits offsets through the consumer: one commit in flight at a time, so that none overtakes a later one.

Where commits keep failing, it pauses the input topics: what they deliver is processed again after a crash. The poll
thread owns the ``Committer``; ``request``, and what is read of it, are for other threads.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException, TopicPartition

from consumer.kafka.clients.errors import OF_A_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Consumer, KafkaError

    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.consume.assignment import Pauses

_log = structlog.stdlib.get_logger(__name__)

ANSWER_SECONDS = 60.0
"""A commit without an answer for this long is given up and repeated: librdkafka answers within socket.timeout.ms."""

RETRY_SECONDS = 1.0

AWAY_SECONDS = 1.0
"""A poll thread that did not come round for this long (it waited in a revocation) has answers to hear first."""

COMMIT = "commit"
"""Reason of the pause while offsets cannot be committed."""

_RIGHTS = "give this client the right to read the group and its topics"
_FIXES = {
    "GROUP_AUTHORIZATION_FAILED": _RIGHTS,
    "TOPIC_AUTHORIZATION_FAILED": _RIGHTS,
    "REBALANCE_IN_PROGRESS": "see which member of the group does not finish its rebalance",
}
_FIX = "look at the brokers, and whether __consumer_offsets has its leaders and in-sync replicas"


class Committer:
    """Asynchronous commits of the offsets of current epochs, and a last synchronous one when assignments end.

    Offsets are (epoch, offset) pairs: an offset is only sent while its epoch is that of the current assignment, and
    within an epoch it never replaces a higher one.
    """

    def __init__(
        self,
        observer: KafkaObserver,
        pauses: Pauses,
        pause_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Topics pause when offsets could not be committed for ``pause_after`` seconds, until they can."""
        self._observer = observer
        self._pauses = pauses
        self._pause_after = pause_after
        self._clock = clock
        self._came_round = clock()
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
        # When the first try began to commit what is not committed yet, by partition.
        self._since: dict[Partition, float] = {}
        self.uncommitted_since = math.inf
        """Monotonic seconds of the oldest of these tries; infinite while all that was tried is committed."""
        # After an error that may be one topic's alone each topic has commits of its own, least lately tried first.
        self._by_topic = False
        self._tried: dict[str, float] = {}
        self.code = ""
        """The error of the latest commit that failed; empty once nothing waits."""

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
        if now - self.uncommitted_since > self._pause_after or COMMIT in self._pauses.reasons:
            self._pause(now)
        self._came_round = now
        # Without the lock: what is requested meanwhile is sent in the next round.
        if not self._wanted or now < self._not_before:
            return
        with self._lock:
            self._want(self._in_flight)
            wanted = {p: offset for p, offset in self._wanted.items() if epochs.get(p) == offset[0]}
            self._by_topic = self._by_topic and bool(self._since)
            topics = sorted({p.topic for p in wanted}, key=lambda topic: self._tried.get(topic, -math.inf))
            if self._by_topic and topics:
                del topics[1:]
                self._tried[topics[0]] = now
            self._in_flight = {p: offset for p, offset in wanted.items() if p.topic in topics}
            self._wanted = {p: offset for p, offset in wanted.items() if p.topic not in topics}
        if self._in_flight:
            for partition in self._in_flight:
                self._since.setdefault(partition, now)
            self._look_back()
            self._not_before = now + ANSWER_SECONDS
            offsets = {partition: offset for partition, (_, offset) in self._in_flight.items()}
            try:
                consumer.commit(offsets=_positions(offsets), asynchronous=True)
            except KafkaException as error:
                self._answered(error.args[0])

    def on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """The client's ``on_commit`` callback, called inside its poll: the commit in flight ended."""
        errors = [error, *(position.error for position in positions)]
        self._answered(next((each for each in errors if each is not None), None))

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
        for partition in epochs:
            self._since.pop(partition, None)
        self._look_back()
        return last

    def _answered(self, error: KafkaError | None) -> None:
        """The commit in flight ended. When it failed, all of it is wanted again, in a second."""
        with self._lock:
            committed, self._in_flight = self._in_flight, {}
            if error is not None:
                self._want(committed)
        self._not_before = -math.inf
        if error is None:
            for partition in committed:
                self._since.pop(partition, None)
            self._look_back()
            if not self._since:
                self.code = ""
            self._observer.committed(len(committed))
            return
        self._not_before = self._clock() + RETRY_SECONDS
        self._observer.commit_failed(error.name())
        self._by_topic = self._by_topic or error.code() in OF_A_TOPIC
        if error.name() != self.code:
            self.code = error.name()
            _log.warning("a commit failed; it is tried again while the partitions are ours", code=self.code)

    def _pause(self, now: float) -> None:
        """Pause all topics while offsets cannot be committed, or those that alone are refused; resume the others."""
        if now - self._came_round > AWAY_SECONDS:
            return
        topics = {p.topic for p, since in self._since.items() if now - since > self._pause_after}
        before = self._pauses.reasons.get(COMMIT, frozenset())
        self._pauses.pause(COMMIT, topics if self._by_topic or not topics else None)
        after = self._pauses.reasons.get(COMMIT, frozenset())
        if after - before:
            _log.error(
                "offsets cannot be committed: consumption pauses until they can; after a crash, what became durable "
                "meanwhile is processed again",
                topics=sorted(after),
                seconds=round(now - self.uncommitted_since, 1),
                code=self.code or "no answer",
                fix=_FIXES.get(self.code, _FIX),
            )
        elif before and not after:
            _log.info("no offset waits for its commit any more")

    def _look_back(self) -> None:
        self.uncommitted_since = min(self._since.values(), default=math.inf)


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number, offset) for p, offset in offsets.items()]
