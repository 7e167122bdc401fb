"""What follows a failed call of a transactional producer: an abort, another try, another producer, or the end.

Decided by the error and the step alone. Whatever can be mended ends in an abort or another try; what is unknown ends
the worker, whose successor reads again what is not committed.

Another producer takes over where the brokers ended the transaction, because it lasted longer than its timeout (the
transactional id is this process's own, so nobody else fences it), where records of it are gone, where the old producer
could not even abort, or gets no answer from the coordinator. Nothing of its transaction is committed, since a commit
that was begun never leads here. An abort fails when the brokers ended the transaction first, and when they let no
partition into it: then they have nothing to abort, and the client takes their answer for a fatal error of its producer.

The new producer has the same transactional id, and first produces some of the same outcomes and aborts them. An only
broker that was killed may come back without the markers of a transaction that its coordinator takes for ended (seen on
Kafka 4.4, in the log's segments): readers would wait at it for ever, or see it committed with the id's next
transaction. The marker of this abort should end it, in every partition that a number or a key chose; that was not run
against a broker in that state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import structlog
from confluent_kafka import KafkaError

from consumer.delivery.transaction_queue import BACKOFF, BLOCKED_FAILURES, bytes_of
from consumer.kafka.clients.errors import ENDED, OF_A_TOPIC, ClientFailed
from consumer.kafka.publish.transaction import WITHOUT_TRANSACTION, Refused, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from confluent_kafka import KafkaException

    from consumer.delivery.ledger import Release
    from consumer.delivery.transaction_queue import TransactionQueue
    from consumer.delivery.transaction_size import TransactionSize
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.publish.transaction import Transaction

_log = structlog.stdlib.get_logger(__name__)

COORDINATOR = "the transaction coordinator"
OFFSETS = "the commit of offsets"

_NOT_COMMITTED = ENDED | {KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER}
"""Failures of a producer whose open transaction nobody has begun to commit. The last: records that it had written are
gone, as where an output topic was deleted and made anew."""

_REBALANCING = frozenset({"ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID"})
"""What a transaction meets in the middle of a rebalance; the next one has the new generation."""


def action_after(error: KafkaError, step: Step) -> Literal["abort", "retry", "replace"]:
    """What follows ``error``, met at ``step``; for what a commit itself raises ``check_commit`` comes first.

    An abort (the same outcomes are produced again in the next transaction), another try of the same step after a pause,
    or another producer. Raises ClientFailed where the worker must end.
    """
    if _useless(error):
        if step is Step.ABORT or (error.code() in _NOT_COMMITTED and step not in (*WITHOUT_TRANSACTION, Step.COMMIT)):
            return "replace"
        raise ClientFailed(
            f"The transactional producer is of no use any more: {error.name()}: {error.str()}. The brokers abort what "
            "it left open, and a successor reads again what it held."
        )
    if error.txn_requires_abort() and step not in (*WITHOUT_TRANSACTION, Step.ABORT):
        return "abort"
    if error.retriable() or error.txn_requires_abort():
        return "retry"
    raise ClientFailed(f"A transaction failed: {error.name()}: {error.str()}")


def check_commit(failure: KafkaException) -> None:
    """Returns when the same commit may be tried again.

    Raises ``failure`` itself when nothing was committed, ClientFailed when that is not known: producing the outcomes
    again could publish them twice.
    """
    error = failure.args[0]
    if error.retriable() and not error.txn_requires_abort():
        return
    if _useless(error):
        raise failure
    raise ClientFailed(f"The outcome of a commit is unknown: {error.name()}: {error.str()}") from None


def _useless(error: KafkaError) -> bool:
    return error.fatal() or error.code() in ENDED


class Retries:
    """The pause before the next try, which grows with the failures in a row, and what they were about."""

    def __init__(self, observer: KafkaObserver, clock: Callable[[], float]) -> None:
        self._observer = observer
        self._clock = clock
        self.failures = 0
        """Failed tries in a row."""
        self.not_before = 0.0
        """Monotonic seconds of the next try."""
        self.cause = ""
        """What the latest failure was about: a topic, the coordinator or the group."""

    @property
    def blocked(self) -> tuple[str, ...]:
        """What keeps transactions from being committed: a topic, or the coordinator."""
        return (self.cause,) if self.failures >= BLOCKED_FAILURES else ()

    def wait(self, refused: Refused) -> None:
        """Try again after a pause."""
        delay = BACKOFF.pause(self.failures)
        self.cause, error = refused
        # Records that could not be written in time took as long as many other failures.
        timed_out = error.code() == KafkaError._MSG_TIMED_OUT
        self.failures = max(self.failures + 1, BLOCKED_FAILURES if timed_out else 0)
        self.not_before = self._clock() + delay
        self._observer.produce_refused(self.cause, error.name())
        _log_refusal(refused, delay, blocked=bool(self.blocked))

    def after_abort(
        self, error: KafkaError, step: Step, transaction: Transaction, queue: TransactionQueue
    ) -> Refused | None:
        """Why what follows the abort for ``error``, met at ``step``, has to wait; None where it need not.

        Of the offsets of several input topics the error does not say whose were refused: each is held for itself.
        """
        if step is not Step.SEND_OFFSETS or error.code() not in OF_A_TOPIC:
            return Refused(COORDINATOR, error)
        self.hold(queue, {partition.topic for partition in transaction.offsets}, Refused(OFFSETS, error))
        return None

    def hold(self, queue: TransactionQueue, inputs: Iterable[str], refused: Refused) -> None:
        """Outputs, or the offsets, of these input topics were refused: they wait in ``queue``, tried by themselves."""
        now = self._clock()
        held = {topic: queue.hold(topic, refused.what, now) for topic in sorted(inputs)}
        self._observer.produce_refused(refused.what, refused.error.name())
        delay = min(each.not_before for each in held.values()) - now
        _log_refusal(refused, delay, blocked=any(each.blocked for each in held.values()), inputs=held)


def halve(size: TransactionSize, batch: Sequence[Release], why: str) -> None:
    """Make the next transaction smaller than that of ``batch``, and say so."""
    before = size.bounds
    size.halve(len(batch), bytes_of(batch))
    if size.bounds != before:
        _log.warning(
            "a transaction did not get through: the next one is smaller",
            reason=why,
            records=len(batch),
            next_records=size.records,
            next_bytes=size.bytes,
        )


def _log_refusal(refused: Refused, delay: float, *, blocked: bool, inputs: Iterable[str] = ()) -> None:
    """``inputs`` are the input topics that wait, by default all."""
    if blocked:
        log = _log.error
    else:
        log = _log.info if refused.error.name() in _REBALANCING else _log.warning
    log(
        "a transaction could not be committed: nothing is dropped, it is tried again, and what needs it pauses until "
        "it works",
        cause=refused.what,
        inputs=[*inputs] or "all",
        code=refused.error.name(),
        reason=refused.error.str(),
        retry_seconds=round(delay, 1),
        fix="if it lasts, check that the topics exist, and that this client may write to them, read its input "
        "topics and use its transactional id; where a single record takes too long, raise "
        "delivery.transaction_timeout_ms",
    )
