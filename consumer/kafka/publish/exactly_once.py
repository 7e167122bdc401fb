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
from functools import partial
from typing import TYPE_CHECKING, Literal

import structlog
from confluent_kafka import KafkaError, KafkaException

from consumer.delivery.transaction_queue import TransactionQueue
from consumer.delivery.transaction_size import TransactionSize
from consumer.kafka.clients.errors import ClientFailed, client_errors
from consumer.kafka.clients.watchdog import PendingCall
from consumer.kafka.consume.membership import is_member
from consumer.kafka.publish.transaction import (
    COMMIT_SECONDS,
    INITIAL_SECONDS,
    LOST_SECONDS,
    NO_MEMBER,
    OFFSETS_SECONDS,
    SLICE_SECONDS,
    TIMED_OUT,
    WITHOUT_TRANSACTION,
    Refused,
    Step,
    Transaction,
    first_unplaced,
    one_of_each_partition,
)
from consumer.kafka.publish.transaction_failures import COORDINATOR, Retries, action_after, check_commit, halve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.config.tree import DeliveryConfig
    from consumer.delivery.ledger import Commit, Release
    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.clients.watchdog import StuckClientDetector
    from consumer.kafka.consume.poll_thread import PollThread
    from consumer.kafka.publish.producers import PartitionCounts, Producers
    from consumer.kafka.publish.refusals import Replacements

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
        replacements: Replacements,
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
        self._replacements = replacements
        self._poll_thread = poll_thread
        self._observer = observer
        self._stuck = stuck
        self._clock = clock
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
        self._timeout = delivery.transaction_timeout_ms / 1000
        self._size = TransactionSize(delivery.transaction_records, delivery.transaction_bytes, self._timeout)
        self._queue = TransactionQueue(self._size, delivery.transaction_interval_ms / 1000)
        self.try_again = self._queue.try_again
        """Try every topic that takes nothing once more, now."""
        self._linger = True

    @property
    def idle_seconds(self) -> float:
        """Seconds until the next transaction, or the next try of one, is due."""
        due_at = self._queue.due_at(linger=self._linger) if self._step is Step.BEGIN else -math.inf
        return max(0.0, max(due_at, self._retries.not_before) - self._clock())

    @property
    def blocked(self) -> Mapping[str, frozenset[str] | None]:
        """What keeps outcomes from being committed, and the input topics that wait; None: all of them."""
        return {**self._queue.blocked, **dict.fromkeys(self._retries.blocked)}

    @property
    def stuck(self) -> bool:
        """Whether all that is pending waits for topics that took nothing since ``try_again``, either."""
        return self._step is Step.BEGIN and self._queue.stuck

    def send(self, release: Release) -> None:
        """Accept the outputs of one released outcome. Releases of a partition must come in offset order."""
        self._queue.add(release, self._clock())

    def commit(self, commits: Mapping[Partition, Commit]) -> Mapping[Partition, Commit]:
        """Ends of partitions join the next transaction; a commit by the consumer could land after a later one's."""
        self._queue.add_ends({partition: each[:2] for partition, each in commits.items()}, self._clock())
        return {}

    def run_once(self, *, linger: bool = True) -> list[Release]:
        """Go on with the transaction as far as it goes; returns the releases of one that was committed.

        Without ``linger`` the next one does not wait for more outcomes. Raises ClientFailed when the producer cannot be
        used any more.
        """
        self._linger = linger
        self._counts.new_round()
        try:
            with client_errors():
                self._producers.current.poll(0.0)
                while self._clock() >= self._retries.not_before and self._steps[self._step]():
                    pass
        except KafkaException as error:
            self._fail(error.args[0])
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
        return self._queue.outputs

    # The steps of a transaction: each returns whether the next one may follow at once.

    def _initialise(self) -> bool:
        self._producers.current.init_transactions(INITIAL_SECONDS)
        self._stuck.worked_at = self._clock()
        self._step = Step.BEGIN
        if self._retries.cause == COORDINATOR:
            self._retries.failures = 0
        return True

    def _begin(self) -> bool:
        """Open a transaction if one is due."""
        due_at = self._queue.due_at(linger=self._linger)
        if self._clock() < due_at:
            if due_at == math.inf:
                self._retries.failures = 0  # what failed went to other workers: nothing is left to fail, or to try with
            return False
        self._queue.keep(self._poll_thread.epochs)
        batch, offsets = self._queue.next_batch(self._clock())
        if not batch and not offsets:
            return False
        if offsets and (unplaced := first_unplaced(batch, self._counts)) is not None:
            topic, refused = unplaced
            if refused is not None:
                self._retries.hold(self._queue, (topic,), refused)
            return refused is not None  # the others may go on at once
        self._producers.current.begin_transaction()
        singly = self._size.records == 1 or (self._queue.trying is not None and len(batch) == 1)
        self._transaction = Transaction(batch, offsets, singly=singly, started=self._clock())
        self._step = Step.PRODUCE
        return True

    def _produce(self) -> bool:
        self._transaction.produce(self._producers.current, self._counts, self._replacements)
        self._step = Step.REVIEW if self._transaction.failed else Step.FLUSH
        return True

    def _flush(self) -> bool:
        transaction = self._transaction
        missing = self._producers.current.flush(SLICE_SECONDS)
        if transaction.failed:
            self._step = Step.REVIEW
        elif not missing:
            self._step = Step.SEND_OFFSETS if transaction.offsets else Step.ABORT
            transaction.seconds = self._clock() - transaction.started
            if self._size.is_late(transaction.seconds) and len(transaction.batch) > 1:
                self._halve("it took long to write")
                self._step = Step.ABORT
        return self._step is not Step.FLUSH

    def _review(self) -> bool:
        transaction = self._transaction
        found = transaction.review(self._replacements, slow=self._size.is_slow(self._clock() - transaction.started))
        if found == "batch too large":
            self._halve("a topic refuses it for its size, or for a record in it")
        elif found == "replaced":
            self._size.one_was_too_large()
        elif (refused := transaction.refused) is not None and refused.error.code() in TIMED_OUT:
            if not self._counts.any_missing(transaction.topics):  # one that was deleted kept all of them from leaving
                self._halve("its records could not be written in time")
        elif refused is not None and transaction.held:
            self._counts.forget(refused.what)
            self._retries.hold(self._queue, transaction.held, refused)
            transaction.refused = None  # what needs none of it may follow at once
        self._step = Step.ABORT
        return True

    def _send_offsets(self) -> bool:
        transaction = self._transaction
        # The metadata before the epochs: that of a later generation would commit offsets of partitions that this
        # generation gave to others. That of an earlier one is refused by the broker, and read again the next time.
        metadata = self._poll_thread.group_metadata
        epochs = self._poll_thread.epochs
        self._step = Step.ABORT
        if lost := transaction.lost(epochs):
            _log.info("a transaction is aborted: partitions went to another worker", assignments=[*map(str, lost)])
        elif not is_member(metadata):
            transaction.refused = NO_MEMBER
        else:
            send = self._producers.current.send_offsets_to_transaction
            positions = transaction.positions(self._poll_thread.leader_epochs)
            self._offsets_call = PendingCall(partial(send, positions, metadata, OFFSETS_SECONDS), self._clock)
            self._step = Step.AWAIT_OFFSETS
        return True

    def _await_offsets(self) -> bool:
        """On its own thread the call may hang: with librdkafka 2.16 it was seen to, after leaders were killed."""
        call = self._offsets_call
        if call.returned(SLICE_SECONDS):
            self._step = Step.SEND_OFFSETS
            call.result()
            self._step = Step.COMMIT
            if self._clock() - self._transaction.started >= self._timeout:
                # The brokers end it now, or have. They would refuse its commit, which would be this worker's end.
                self._halve("its offsets were not taken in time")
                self._step = Step.ABORT
            return True
        if call.seconds > self._timeout + LOST_SECONDS:
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
        self._durable.extend(transaction.batch)
        size = self._queue.committed(transaction.batch, transaction.offsets, self._clock())
        self._size.committed(len(transaction.batch), size, transaction.seconds)
        self._retries.failures = 0
        self._ended("committed")
        return False  # commands are taken between transactions

    def _abort(self) -> bool:
        self._producers.current.abort_transaction(SLICE_SECONDS)
        refused = self._transaction.refused
        if not self._transaction.offsets:
            self._queue.aborted(self._transaction.batch)
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

    def _halve(self, why: str) -> None:
        if self._queue.trying is None:
            halve(self._size, self._transaction.batch, why)
        else:  # says nothing of the transactions of others
            self._queue.too_many()

    def _fail(self, error: KafkaError) -> None:
        action = action_after(error, self._step)
        if action == "abort":
            self._transaction.refused = self._retries.after_abort(error, self._step, self._transaction, self._queue)
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
            if not self._transaction.held:
                self._halve("the brokers ended it, or do not answer")
            self._queue.abort_first(one_of_each_partition(self._transaction, self._counts))
            self._ended("aborted")
        self._producers.replace()
        self._stuck.worked_at = self._clock()  # the new one has its own time to find the coordinator
        self._step = Step.INITIALISE
        self._retries.wait(refused)
