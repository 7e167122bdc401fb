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
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.kafka.clients.errors import OF_A_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Consumer

    from consumer.delivery.ledger import Commit
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

    An offset is only sent while its epoch is that of the current assignment, and within an epoch it never replaces a
    higher one.
    """

    def __init__(
        self,
        observer: KafkaObserver,
        pauses: Pauses,
        leader_epochs: Mapping[Partition, int],
        pause_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``leader_epochs``: of the last record that was read of each partition; they go with its offset.

        Topics pause when offsets could not be committed for ``pause_after`` seconds, until they can.
        """
        self._observer = observer
        self._pauses = pauses
        self._leader_epochs = leader_epochs
        self._pause_after = pause_after
        self._clock = clock
        self._came_round = clock()
        self._notes = True
        """Whether the brokers take the notes of commits, as far as is known."""
        self._lock = threading.Lock()  # around what is wanted and in flight; never held during a call of the client
        self.reset()

    def reset(self) -> None:
        """Forget all commits: another client takes over, and the old one's answers will not come.

        The offsets that were requested belong to epochs that have ended.
        """
        self._wanted: dict[Partition, Commit] = {}
        self._in_flight: dict[Partition, Commit] = {}
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

    def request(self, commits: Mapping[Partition, Commit]) -> None:
        """Commit these of each partition as long as its epoch is the current one. From any thread."""
        with self._lock:
            self._wanted = _newest(self._wanted, commits)

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
            self._wanted = _newest(self._in_flight, self._wanted)
            wanted = {p: commit for p, commit in self._wanted.items() if epochs.get(p) == commit.epoch}
            self._by_topic = self._by_topic and bool(self._since)
            topics = sorted({p.topic for p in wanted}, key=lambda topic: self._tried.get(topic, -math.inf))
            if self._by_topic and topics:
                del topics[1:]
                self._tried[topics[0]] = now
            self._in_flight = {p: commit for p, commit in wanted.items() if p.topic in topics}
            self._wanted = {p: commit for p, commit in wanted.items() if p.topic not in topics}
        if self._in_flight:
            for partition in self._in_flight:
                self._since.setdefault(partition, now)
            self._look_back()
            self._not_before = now + ANSWER_SECONDS
            try:
                consumer.commit(offsets=self._positions(self._in_flight), asynchronous=True)
            except KafkaException as error:
                self._answered(error.args[0])

    def on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """The client's ``on_commit`` callback, called inside its poll: the commit in flight ended."""
        errors = [error, *(position.error for position in positions)]
        self._answered(next((each for each in errors if each is not None), None))

    def commit_last(
        self, consumer: Consumer, leaving: Mapping[Partition, int], last: Mapping[Partition, Commit]
    ) -> bool:
        """Assignments end: commit ``last``, and what was requested and not yet answered, and wait for the answer.

        Returns whether all of it is committed. Otherwise the new owner starts at the commit before: records are
        repeated, none is lost.
        """
        commits = {**self._leave(leaving), **last}
        if not commits:
            return True
        errors = self._commit_now(consumer, commits)
        if any(self._is_note_refused(error) for error in errors):
            errors = self._commit_now(consumer, commits)
        if errors:
            self._observer.commit_failed(errors[0].name())
            _log.warning(
                "the last commit of revoked partitions failed",
                assignments=list(map(str, commits)),
                reason=str(errors[0]),
            )
        else:
            self._observer.committed(len(commits))
        return not errors

    def forget(self, lost: Mapping[Partition, int]) -> bool:
        """Assignments were lost: commit nothing of them. Returns whether nothing was left to commit."""
        return not self._leave(lost)

    def _commit_now(self, consumer: Consumer, commits: Mapping[Partition, Commit]) -> list[KafkaError]:
        """Commit and wait for the answer; returns what it says of errors."""
        try:
            answered = consumer.commit(offsets=self._positions(commits), asynchronous=False)
        except KafkaException as error:
            return [error.args[0]]
        return [position.error for position in answered or () if position.error is not None]

    def _positions(self, commits: Mapping[Partition, Commit]) -> list[TopicPartition]:
        return [
            TopicPartition(
                *p, commit.offset, commit.note if self._notes else "", leader_epoch=self._leader_epochs.get(p, -1)
            )
            for p, commit in commits.items()
        ]

    def _is_note_refused(self, error: KafkaError | None) -> bool:
        """Whether brokers refuse a commit for its note; no other is sent then."""
        if error is None or error.code() != KafkaError.OFFSET_METADATA_TOO_LARGE or not self._notes:
            return False
        self._notes = False
        _log.warning(
            "the brokers take no text of 4,000 characters with a commit: after a crash, what is done behind a record "
            "that waits is done again",
            fix="set offset.metadata.max.bytes of the brokers to 4096, their default, and restart the worker",
        )
        return True

    def _leave(self, epochs: Mapping[Partition, int]) -> dict[Partition, Commit]:
        """Forget assignments that end; returns their furthest commits that were wanted or not yet answered."""
        last: dict[Partition, Commit] = {}
        with self._lock:
            for known in (self._in_flight, self._wanted):
                ended = {p: known.pop(p) for p in epochs if p in known}
                last = _newest(last, {p: commit for p, commit in ended.items() if commit.epoch == epochs[p]})
        for partition in epochs:
            self._since.pop(partition, None)
        self._look_back()
        return last

    def _answered(self, error: KafkaError | None) -> None:
        """The commit in flight ended. When it failed, all of it is wanted again, in a second."""
        with self._lock:
            committed, self._in_flight = self._in_flight, {}
            if error is not None:
                self._wanted = _newest(committed, self._wanted)
        self._not_before = -math.inf
        if self._is_note_refused(error):
            return
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


def _newest(earlier: Mapping[Partition, Commit], later: Mapping[Partition, Commit]) -> dict[Partition, Commit]:
    """Of each partition the one that is further; of two equally far the later one, whose note says more."""
    newest = dict(earlier)
    for partition, commit in later.items():
        known = newest.get(partition)
        if known is None or commit[:2] >= known[:2]:
            newest[partition] = commit
    return newest
