"""Publishes released outcomes exactly once: outputs, dead letters and the offsets of their input in one transaction.

A transaction is opened with outcomes in hand and never waits for a model. Whatever can be mended ends in an abort, and
the same outcomes are produced again in the next transaction: readers with read_committed never see the first try. Only
lost ownership of a partition drops outcomes; their input is not committed and its new owner reads it.

Who may commit is decided twice. Here: ownership of every partition in the transaction is looked at, and the group's
metadata is not newer than that. By the broker: the metadata holds our generation or member epoch, so the commit of a
member that the group has given up is refused (KIP-447).
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Literal

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.kafka.clients.errors import ClientFailed, kafka_cause
from consumer.kafka.clients.watchdog import PendingCall
from consumer.kafka.consume.membership import is_member
from consumer.kafka.publish.transaction import SLICE_SECONDS, Held, Refused, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.commands import Processed
    from consumer.delivery.ledger import Release
    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.clients.watchdog import StuckClientDetector
    from consumer.kafka.publish.producers import Oversize, PartitionCounts
    from consumer.kafka.publish.transaction import Ownership, Producers

logger = logging.getLogger(__name__)

INITIAL_SECONDS = 10.0
"""Longest wait for the coordinator at the start. librdkafka asks again by itself meanwhile; a second call while its
question is under way asks twice, and the second answer fences the first one's producer."""

OFFSETS_SECONDS = 2.0
"""Wait for the offsets to be taken into the transaction. librdkafka goes on beyond it where a broker does not answer at
all, up to transaction.timeout.ms; a rebalance does not wait for that."""

LOST_SECONDS = 5.0
"""A call that has not returned so long after transaction.timeout.ms is given up: by then the brokers have ended the
transaction."""

COMMIT_SECONDS = 10.0
"""Longest single wait for a commit, far above what it takes. It is cut into fewer slices than other waits: once, after
a broker's restart, librdkafka ended the process on a call that resumed a commit while its answer arrived."""

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
BLOCKED_FAILURES = 4
"""Consumption pauses from this many failures in a row (0.7 s): fewer are a rebalance, or a leader moving."""

COORDINATOR = "the transaction coordinator"

_NOT_OURS = frozenset({KafkaError._FENCED, KafkaError.INVALID_TXN_STATE, KafkaError.INVALID_PRODUCER_ID_MAPPING})
"""The transactional id is someone else's, or its transaction was ended by the brokers. Some brokers tell a producer
that they gave up only INVALID_TXN_STATE, which the client takes for an error that an abort could mend."""


_GIVEN_UP = "The transaction coordinator does not answer this producer, while brokers answer a new client"

_REBALANCING = frozenset({"ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID"})
"""What a transaction meets in the middle of a rebalance; the next one has the new generation."""


class TransactionalPublisher:
    """One thread's; one transaction at a time.

    ``run_once`` waits for brokers in slices of ``SLICE_SECONDS``. A step that was not finished in its slice goes on in
    the next turn: the client's calls allow that.
    """

    def __init__(
        self,
        producers: Producers,
        counts: PartitionCounts,
        oversize: Oversize,
        ownership: Ownership,
        observer: KafkaObserver,
        stalled: StuckClientDetector,
        interval: float,
        records: int,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A transaction holds at most ``records`` input records and waits at most ``interval`` seconds for more.

        Brokers abort it after ``timeout`` seconds.

        ``stalled`` is asked while the coordinator does not answer.
        """
        self._producers = producers
        self._producer = producers.current
        self._counts = counts
        self._oversize = oversize
        self._ownership = ownership
        self._observer = observer
        self._stalled = stalled
        self._interval = interval
        self._records = records
        self._timeout = timeout
        self._clock = clock
        self._held: deque[Held] = deque()
        # Positions at which a partition has nothing more to read; they have no outputs.
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._ends_since = math.inf
        self._committed: dict[Partition, tuple[int, int]] = {}
        self._durable: list[Release[Processed]] = []
        self._step: Callable[[], bool] | None = self._initialise
        self._transaction: Transaction | None = None
        self._offsets_call: PendingCall | None = None
        self._limit = records
        self._widening = 1.125
        self._sweeping: list[Held] = []
        self._not_before = 0.0
        self._failures = 0
        self._refused_by = ""
        self._hastened = False

    # -- what the release thread uses -----------------------------------------------------------------------------

    @property
    def idle_seconds(self) -> float:
        """Until the next transaction is due, or the next try of one."""
        now = self._clock()
        wait = self._not_before - now
        if self._step is None:
            wait = max(wait, self._due_at() - now)
        return max(0.0, wait)

    @property
    def blocked(self) -> tuple[str, ...]:
        """What keeps transactions from being committed: a topic, or the coordinator."""
        return (self._refused_by,) if self._failures >= BLOCKED_FAILURES else ()

    def send(self, release: Release[Processed]) -> None:
        """Accept the outputs of one released outcome. Releases of a partition must come in offset order."""
        self._held.append(Held(release, list(release.outcome.outcome.outputs), self._clock()))

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> Mapping[Partition, tuple[int, int]]:
        """Nothing is left to the consumer: a commit of its own could land after a later transaction's."""
        for partition, end in offsets.items():
            if end > self._committed.get(partition, (-1, -1)):
                self._ends[partition] = end
                self._ends_since = min(self._ends_since, self._clock())
        return {}

    def flush_soon(self) -> None:
        """The next transaction need not wait for company."""
        self._hastened = True

    def run_once(self) -> list[Release[Processed]]:
        """Go on with the transaction as far as it goes; returns the releases of one that was committed.

        Raises ClientFailed when the producer is of no use any more.
        """
        try:
            self._producer.poll(0.0)
            while self._clock() >= self._not_before and (self._step is not None or self._begin()):
                if self._step is not None and not self._step():
                    break
        except KafkaException as error:
            self._fail(error.args[0])
        except SystemError as error:
            if (cause := kafka_cause(error)) is None:
                raise
            self._fail(cause.args[0])
        self._hastened = False
        durable, self._durable = self._durable, []
        return durable

    def flush(self, seconds: float) -> int:
        """Finish a commit under way, abort what else is open; returns the number of outputs that are not durable."""
        deadline = self._clock() + seconds
        if self._step not in (self._await_offsets, self._commit):
            self._step = self._abort
        while self._transaction is not None and self._step is not None and self._clock() < deadline:
            try:
                self._step()
            except (KafkaException, ClientFailed, SystemError) as error:
                if self._step == self._send_offsets:  # they did not get in
                    self._step = self._abort
                    continue
                if isinstance(error, KafkaException) and error.args[0].retriable():
                    continue
                logger.warning("The last transaction is left to the brokers, which abort it: %s", error)
                break
        return sum(len(held.outputs) for held in self._held)

    # -- the steps of a transaction: each returns whether the next one may follow at once -----------------------------

    def _initialise(self) -> bool:
        self._producer.init_transactions(INITIAL_SECONDS)
        self._stalled.works()
        self._step = None
        if self._refused_by == COORDINATOR:
            self._failures = 0
        return True

    def _due_at(self) -> float:
        if self._sweeping:
            return -math.inf
        if (self._held or self._ends) and (self._hastened or len(self._held) >= self._limit):
            return -math.inf
        first = self._held[0].since if self._held else math.inf
        return min(first, self._ends_since) + self._interval

    def _begin(self) -> bool:
        """Open a transaction if one is due."""
        if self._clock() < self._due_at():
            return False
        if self._sweeping:
            self._open_with(self._sweeping, {})
            return True
        epochs = self._ownership.epochs
        self._held = deque(held for held in self._held if epochs.get(held.release.partition) == held.release.epoch)
        self._ends = {p: end for p, end in self._ends.items() if epochs.get(p) == end[0]}
        batch = list(islice(self._held, self._limit))
        # An end is known once all before it is durable, so whatever is held now lies behind it.
        offsets = dict(self._ends)
        for held in batch:
            offsets[held.release.partition] = (held.release.epoch, held.release.offset + 1)
        if not offsets:
            self._ends_since = math.inf
            self._failures = 0  # what failed went to other workers: there is nothing left to fail, or to try with
            return False
        for held in batch:
            for output in held.outputs:
                if self._counts.place(output, held.release.partition.topic) is None:
                    missing = "it is missing, or no broker answers"
                    self._wait(Refused(output.topic, "UNKNOWN_TOPIC_OR_PART", missing))
                    return False
        self._open_with(batch, offsets)
        return True

    def _open_with(self, batch: list[Held], offsets: Mapping[Partition, tuple[int, int]]) -> None:
        self._producer.begin_transaction()
        self._transaction = Transaction(batch, offsets, singly=self._limit == 1, started=self._clock())
        self._step = self._produce

    def _produce(self) -> bool:
        transaction = self._open()
        transaction.produce(self._producer, self._counts, self._oversize)
        self._step = self._undelivered if transaction.failed else self._flush
        return True

    def _flush(self) -> bool:
        missing = self._producer.flush(SLICE_SECONDS)
        if self._open().failed:
            self._step = self._undelivered
        elif not missing:
            self._step = self._abort if self._sweeping else self._send_offsets
        return self._step != self._flush

    def _undelivered(self) -> bool:
        transaction = self._open()
        verdict = transaction.judge(self._oversize)
        if verdict == "too large together":
            self._limit = max(1, len(transaction.batch) // 2)
        # Where one record was too large the others may go together again at once; else the topic takes no such batches.
        self._widening = 2.0 if verdict == "replaced" else 1.125
        if transaction.refused is not None:
            self._counts.forget(transaction.refused.what)
        self._step = self._abort
        return True

    def _send_offsets(self) -> bool:
        transaction = self._open()
        metadata = self._ownership.group_metadata  # before the epochs
        epochs = self._ownership.epochs
        lost = sorted(p for p, (epoch, _) in transaction.offsets.items() if epochs.get(p) != epoch)
        if lost:
            logger.info("a transaction is given up: %s went to another worker", ", ".join(map(str, lost)))
            self._step = self._abort
        elif not is_member(metadata):
            transaction.refused = Refused("the group", "UNKNOWN_MEMBER_ID", "it has given this worker up")
            self._step = self._abort
        else:
            positions = [TopicPartition(p.topic, p.number, offset) for p, (_, offset) in transaction.offsets.items()]
            producer = self._producer
            self._offsets_call = PendingCall(
                lambda: producer.send_offsets_to_transaction(positions, metadata, OFFSETS_SECONDS), self._clock
            )
            self._step = self._await_offsets
        return True

    def _await_offsets(self) -> bool:
        """Not by a call of this thread: with librdkafka 2.16 it was seen never to return, after leaders were killed."""
        call = self._offsets_call
        if call is None:
            raise RuntimeError("no offsets were sent")  # a defect of ours
        if call.returned(SLICE_SECONDS):
            self._step = self._send_offsets
            call.result()
            self._step = self._commit
            return True
        if call.seconds > self._timeout + LOST_SECONDS:
            # Whatever becomes of it, the next producer fences this one before anything else.
            logger.error("The transactional producer does not come back from a call. Another one takes its place.")
            self._take_over(KafkaError(KafkaError._TIMED_OUT, "the client does not come back"))
        return False

    def _commit(self) -> bool:
        transaction = self._open()
        try:
            self._producer.commit_transaction(COMMIT_SECONDS)
        except KafkaException as error:
            problem = error.args[0]
            if problem.retriable() and not problem.txn_requires_abort():
                if self._stalled.look():
                    raise ClientFailed(f"The outcome of a commit is unknown: {_GIVEN_UP}") from None
                self._wait(Refused(COORDINATOR, problem.name(), problem.str()))
                return False  # the same commit goes on
            if problem.fatal() or problem.code() in _NOT_OURS:
                raise
            # Whether it happened is not known here. Producing the outcomes again could double them.
            raise ClientFailed(f"The outcome of a commit is unknown: {problem.name()}: {problem.str()}") from None
        for held in transaction.batch:
            self._held.popleft()
            self._durable.append(held.release)
        self._committed.update(transaction.offsets)
        self._ends = {p: end for p, end in self._ends.items() if end > transaction.offsets.get(p, (-1, -1))}
        self._ends_since = self._clock() if self._ends else math.inf
        self._limit = min(self._records, math.ceil(self._limit * self._widening))
        self._failures = 0
        self._ended("committed")
        return False  # commands are heard between transactions

    def _abort(self) -> bool:
        self._producer.abort_transaction(SLICE_SECONDS)
        refused = self._open().refused
        self._sweeping = []
        self._ended("aborted")
        if refused is not None:
            self._wait(refused)
        return True

    def _ended(self, how: Literal["committed", "aborted"]) -> None:
        transaction = self._open()
        self._observer.transaction(how, self._clock() - transaction.started, len(transaction.batch))
        self._stalled.works()
        self._transaction = None
        self._step = None

    # -- failures ----------------------------------------------------------------------------------------------------

    def _fail(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _NOT_OURS:
            if self._step == self._abort:
                self._take_over(error)
                return
            raise ClientFailed(
                f"The transactional producer is of no use any more: {error.name()}: {error.str()}. The brokers abort "
                "what it left open, and a successor reads again what it held."
            )
        refused = Refused(COORDINATOR, error.name(), error.str())
        if error.txn_requires_abort() and self._transaction is not None and self._step != self._abort:
            self._transaction.refused = refused
            self._step = self._abort
        elif error.retriable() or error.txn_requires_abort():
            if error.retriable() and self._stalled.look():
                logger.error("%s. Another producer takes its place.", _GIVEN_UP)
                self._take_over(error)
            else:
                self._wait(refused)
        else:
            raise ClientFailed(f"A transaction failed: {error.name()}: {error.str()}")

    def _take_over(self, error: KafkaError) -> None:
        """Go on with a new producer where the old one could not even abort, or has lost its way to the coordinator.
        Nothing of its transaction is committed: a commit that was begun never comes here.

        So it ends when the brokers ended the transaction first, and also when they let no partition into it: then there
        is none that they could abort, and the client takes their answer for the end of its producer.

        The new one has the same transactional id, and first produces the same outcomes and aborts them. An only broker
        that was killed may come back without the markers of a transaction that its coordinator takes for ended (seen on
        Kafka 4.4, in the log's segments): readers would wait at it for ever, or see it committed with the id's next
        transaction. The marker of this abort should end it, in every partition that a number or a key chose; that was
        not run against a broker in that state.
        """
        refused = Refused(COORDINATOR, error.name(), error.str())
        if self._transaction is not None:
            refused = self._transaction.refused or refused
            self._sweeping = self._transaction.batch
            self._ended("aborted")
        self._producer = self._producers.replace()
        self._stalled.works()  # the new one has its own time to find the coordinator
        self._step = self._initialise
        self._wait(refused)

    def _wait(self, refused: Refused) -> None:
        """Try again after a pause that grows with the failures in a row."""
        delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._refused_by = refused.what
        self._not_before = self._clock() + delay
        self._observer.produce_refused(refused.what, refused.code)
        level = logging.INFO if refused.code in _REBALANCING else logging.WARNING
        logger.log(
            level if self._failures < BLOCKED_FAILURES else logging.ERROR,
            "A transaction could not be committed: %s (%s: %s). Nothing is dropped: it is tried again in %.1f s, and "
            "consumption pauses until it works. If it lasts, check that the topics exist, and that this client may "
            "write to them and use its transactional id.",
            refused.what,
            refused.code,
            refused.reason,
            delay,
        )

    def _open(self) -> Transaction:
        if self._transaction is None:
            raise RuntimeError("a step of a transaction without a transaction")  # a defect of ours
        return self._transaction
