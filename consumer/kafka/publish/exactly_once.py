"""Publishes released outcomes exactly once: outputs, dead letters and the offsets of their input in one transaction.

A transaction is opened with outcomes in hand and never waits for a model. Whatever can be mended ends in an abort, and
the same outcomes are produced again in the next transaction: readers with read_committed never see the first try. Only
lost ownership of a partition drops outcomes; their input is not committed and its new owner reads it.

Whether we may commit is checked twice. Here: every partition in the transaction must still be ours, by epochs that are
at least as new as the group metadata. By the broker: the metadata holds our generation or member epoch, so the commit
of a member that the group has removed is refused (KIP-447).
"""

from __future__ import annotations

import math
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Literal

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.kafka.clients.errors import ClientFailed, kafka_cause
from consumer.kafka.clients.watchdog import PendingCall
from consumer.kafka.consume.membership import is_member
from consumer.kafka.publish.producers import NO_TOPIC, Oversize, PartitionCounts, Producers
from consumer.kafka.publish.transaction import (
    COMMIT_SECONDS,
    INITIAL_SECONDS,
    LOST_SECONDS,
    OFFSETS_SECONDS,
    SLICE_SECONDS,
    WITHOUT_TRANSACTION,
    Refused,
    Step,
    Transaction,
)
from consumer.kafka.publish.transaction_failures import COORDINATOR, Retries, action_after, check_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.config.tree import DeliveryConfig
    from consumer.delivery.ledger import Release
    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.clients.watchdog import StuckClientDetector
    from consumer.kafka.consume.poll_thread import PollThread

_log = structlog.stdlib.get_logger(__name__)

_STUCK = "The transaction coordinator does not answer this producer, while brokers answer a new client"


class TransactionalPublisher:
    """Belongs to the release thread; one transaction at a time.

    ``run_once`` waits for brokers in slices of ``SLICE_SECONDS``. A step that was not finished in its slice goes on in
    the next round: the client's calls allow that.
    """

    def __init__(
        self,
        producers: Producers,
        counts: PartitionCounts,
        oversize: Oversize,
        poll_thread: PollThread,
        observer: KafkaObserver,
        stuck: StuckClientDetector,
        delivery: DeliveryConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``poll_thread`` has the group's metadata and the epochs of the assignment.

        ``stuck`` is called while the coordinator does not answer.
        """
        self._producers = producers
        self._counts = counts
        self._oversize = oversize
        self._poll_thread = poll_thread
        self._observer = observer
        self._stuck = stuck
        self._delivery = delivery
        self._clock = clock
        # Outcomes that are not durable yet, with the monotonic seconds of their release.
        self._pending: deque[tuple[Release, float]] = deque()
        # Positions at which a partition has nothing more to read; they have no outputs.
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._ends_since = math.inf
        self._committed: dict[Partition, tuple[int, int]] = {}
        self._durable: list[Release] = []
        self._step = Step.INITIALISE
        self._steps: Mapping[Step, Callable[[], bool]] = {
            Step.INITIALISE: self._initialise,
            Step.BEGIN: self._begin,
            Step.PRODUCE: self._produce,
            Step.FLUSH: self._flush,
            Step.REVIEW: self._review,
            Step.SEND_OFFSETS: self._send_offsets,
            Step.AWAIT_OFFSETS: self._await_offsets,
            Step.COMMIT: self._commit,
            Step.ABORT: self._abort,
        }
        self._transaction = Transaction()
        self._offsets_call: PendingCall
        self._retries = Retries(observer, clock)
        self._limit = delivery.transaction_records
        self._widening = 1.125
        # Releases in the replaced producer's transaction, to be produced and aborted first.
        self._abort_again: Sequence[Release] = ()
        self._linger = True

    @property
    def idle_seconds(self) -> float:
        """Seconds until the next transaction, or the next try of one, is due."""
        due_at = self._due_at() if self._step is Step.BEGIN else -math.inf
        return max(0.0, max(due_at, self._retries.not_before) - self._clock())

    @property
    def blocked(self) -> tuple[str, ...]:
        """What keeps transactions from being committed: a topic, or the coordinator."""
        return self._retries.blocked

    def send(self, release: Release) -> None:
        """Accept the outputs of one released outcome. Releases of a partition must come in offset order."""
        self._pending.append((release, self._clock()))

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> Mapping[Partition, tuple[int, int]]:
        """Ends of partitions join the next transaction; a commit by the consumer could land after a later one's."""
        for partition, end in offsets.items():
            if end > self._committed.get(partition, (-1, -1)):
                self._ends[partition] = end
                self._ends_since = min(self._ends_since, self._clock())
        return {}

    def run_once(self, *, linger: bool = True) -> list[Release]:
        """Go on with the transaction as far as it goes; returns the releases of one that was committed.

        Without ``linger`` the next one does not wait for more outcomes. Raises ClientFailed when the producer cannot be
        used any more.
        """
        self._linger = linger
        try:
            self._producers.current.poll(0.0)
            while self._clock() >= self._retries.not_before and self._steps[self._step]():
                pass
        except KafkaException as error:
            self._fail(error.args[0])
        except SystemError as error:
            if (cause := kafka_cause(error)) is None:
                raise
            self._fail(cause.args[0])
        self._linger = True
        durable, self._durable = self._durable, []
        return durable

    def flush(self, seconds: float) -> int:
        """Finish a commit that was begun, abort what else is open; returns how many outputs are not durable."""
        deadline = self._clock() + seconds
        if self._step not in (*WITHOUT_TRANSACTION, Step.AWAIT_OFFSETS, Step.COMMIT):
            self._step = Step.ABORT
        while self._step not in WITHOUT_TRANSACTION and self._clock() < deadline:
            try:
                self._steps[self._step]()
            except (KafkaException, ClientFailed, SystemError) as error:
                if self._step is Step.SEND_OFFSETS:  # the offsets are not in the transaction
                    self._step = Step.ABORT
                    continue
                if isinstance(error, KafkaException) and error.args[0].retriable():
                    continue
                _log.warning("the last transaction is left to the brokers, which abort it", reason=str(error))
                break
        return sum(len(release.outcome.outputs) for release, _ in self._pending)

    # The steps of a transaction: each returns whether the next one may follow at once.

    def _initialise(self) -> bool:
        self._producers.current.init_transactions(INITIAL_SECONDS)
        self._stuck.worked_at = self._clock()
        self._step = Step.BEGIN
        if self._retries.cause == COORDINATOR:
            self._retries.failures = 0
        return True

    def _due_at(self) -> float:
        full = not self._linger or len(self._pending) >= self._limit
        if self._abort_again or (full and (self._pending or self._ends)):
            return -math.inf
        first = self._pending[0][1] if self._pending else math.inf
        return min(first, self._ends_since) + self._delivery.transaction_interval_ms / 1000

    def _begin(self) -> bool:
        """Open a transaction if one is due."""
        if self._clock() < self._due_at():
            return False
        batch = self._abort_again
        offsets: dict[Partition, tuple[int, int]] = {}
        if not batch:
            epochs = self._poll_thread.epochs
            self._pending = deque(
                each for each in self._pending if epochs.get(each[0].partition) == each[0].record.epoch
            )
            self._ends = {p: end for p, end in self._ends.items() if epochs.get(p) == end[0]}
            batch = [release for release, _ in islice(self._pending, self._limit)]
            # An end is known once all before it is durable, so whatever is pending now lies behind it.
            offsets = {**self._ends, **{r.partition: (r.record.epoch, r.record.offset + 1) for r in batch}}
            if not offsets:
                self._ends_since = math.inf
                self._retries.failures = 0  # what failed went to other workers: nothing is left to fail, or to try with
                return False
            outputs = ((output, release.partition.topic) for release in batch for output in release.outcome.outputs)
            missing = next(
                (output.topic for output, topic in outputs if self._counts.place(output, topic) is None), None
            )
            if missing is not None:
                self._retries.wait(Refused(missing, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, NO_TOPIC)))
                return False
        self._producers.current.begin_transaction()
        self._transaction = Transaction(batch, offsets, singly=self._limit == 1, started=self._clock())
        self._step = Step.PRODUCE
        return True

    def _produce(self) -> bool:
        self._transaction.produce(self._producers.current, self._counts, self._oversize)
        self._step = Step.REVIEW if self._transaction.failed else Step.FLUSH
        return True

    def _flush(self) -> bool:
        missing = self._producers.current.flush(SLICE_SECONDS)
        if self._transaction.failed:
            self._step = Step.REVIEW
        elif not missing:
            self._step = Step.ABORT if self._abort_again else Step.SEND_OFFSETS
        return self._step is not Step.FLUSH

    def _review(self) -> bool:
        transaction = self._transaction
        found = transaction.review(self._oversize)
        if found == "batch too large":
            self._limit = max(1, len(transaction.batch) // 2)
        # Where one record was too large the others may go together again at once; else the topic takes no such batches.
        self._widening = 2.0 if found == "replaced" else 1.125
        if transaction.refused is not None:
            self._counts.forget(transaction.refused.what)
        self._step = Step.ABORT
        return True

    def _send_offsets(self) -> bool:
        transaction, producer = self._transaction, self._producers.current
        # The metadata before the epochs: that of a later generation would commit offsets of partitions that this
        # generation gave to others. That of an earlier one is refused by the broker, and read again the next time.
        metadata = self._poll_thread.group_metadata
        epochs = self._poll_thread.epochs
        self._step = Step.ABORT
        lost = sorted(p for p, (epoch, _) in transaction.offsets.items() if epochs.get(p) != epoch)
        if lost:
            _log.info("a transaction is aborted: partitions went to another worker", assignments=[*map(str, lost)])
        elif not is_member(metadata):
            transaction.refused = Refused(
                "the group", KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "it has given this worker up")
            )
        else:
            positions = [TopicPartition(p.topic, p.number, offset) for p, (_, offset) in transaction.offsets.items()]
            self._offsets_call = PendingCall(
                lambda: producer.send_offsets_to_transaction(positions, metadata, OFFSETS_SECONDS), self._clock
            )
            self._step = Step.AWAIT_OFFSETS
        return True

    def _await_offsets(self) -> bool:
        """On its own thread the call may hang: with librdkafka 2.16 it was seen to, after leaders were killed."""
        call = self._offsets_call
        if call.returned(SLICE_SECONDS):
            self._step = Step.SEND_OFFSETS
            call.result()
            self._step = Step.COMMIT
            return True
        if call.seconds > self._delivery.transaction_timeout_ms / 1000 + LOST_SECONDS:
            # Whatever becomes of the call, the next producer fences this one before anything else.
            _log.error("the transactional producer does not come back from a call: another one takes its place")
            self._replace_producer(KafkaError(KafkaError._TIMED_OUT, "the client does not come back"))
        return False

    def _commit(self) -> bool:
        transaction = self._transaction
        try:
            self._producers.current.commit_transaction(COMMIT_SECONDS)
        except KafkaException as error:
            check_commit(error)
            if self._stuck.look():
                raise ClientFailed(f"The outcome of a commit is unknown: {_STUCK}") from None
            self._retries.wait(Refused(COORDINATOR, error.args[0]))
            return False  # the same commit goes on
        for release in transaction.batch:
            self._pending.popleft()
            self._durable.append(release)
        self._committed.update(transaction.offsets)
        self._ends = {p: end for p, end in self._ends.items() if end > transaction.offsets.get(p, (-1, -1))}
        self._ends_since = self._clock() if self._ends else math.inf
        self._limit = min(self._delivery.transaction_records, math.ceil(self._limit * self._widening))
        self._retries.failures = 0
        self._ended("committed")
        return False  # commands are taken between transactions

    def _abort(self) -> bool:
        self._producers.current.abort_transaction(SLICE_SECONDS)
        refused = self._transaction.refused
        self._abort_again = ()
        self._ended("aborted")
        if refused is not None:
            self._retries.wait(refused)
        return True

    def _ended(self, how: Literal["committed", "aborted"]) -> None:
        transaction, self._transaction = self._transaction, Transaction()
        self._observer.transaction(how, self._clock() - transaction.started, len(transaction.batch))
        self._stuck.worked_at = self._clock()
        self._step = Step.BEGIN

    # Failures.

    def _fail(self, error: KafkaError) -> None:
        action = action_after(error, self._step)
        if action == "abort":
            self._transaction.refused = Refused(COORDINATOR, error)
            self._step = Step.ABORT
        elif action == "replace":
            self._replace_producer(error)
        elif error.retriable() and self._stuck.look():
            _log.error("another producer takes the place of this one", reason=_STUCK)
            self._replace_producer(error)
        else:
            self._retries.wait(Refused(COORDINATOR, error))

    def _replace_producer(self, error: KafkaError) -> None:
        """Go on with a new producer, which has the same transactional id (see ``transaction_failures``)."""
        refused = Refused(COORDINATOR, error)
        if self._step not in WITHOUT_TRANSACTION:
            refused = self._transaction.refused or refused
            self._abort_again = self._transaction.batch
            self._ended("aborted")
        self._producers.replace()
        self._stuck.worked_at = self._clock()  # the new one has its own time to find the coordinator
        self._step = Step.INITIALISE
        self._retries.wait(refused)
