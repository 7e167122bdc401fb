"""Transactions of a command: each holds all that was produced in it, or nothing of it, and one process makes them.

The transactional id is the same for every run of the command on the same topics. So ``begin`` aborts what a killed run
left open, waits for what it was committing, and fences one that still runs: that one commits nothing any more.

A replay of dead letters and the switch of a shadow use it.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.kafka.clients.cluster import ClientErrors, ClusterUnreachable, TopicUnusable
from consumer.kafka.clients.errors import ENDED, client_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message, TopicPartition

CHUNK_RECORDS = 500
CHUNK_BYTES = 4 * 1024 * 1024
"""A transaction holds at most so much: it is written in far less time than its timeout, and an abort repeats little."""

_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
_REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""Errors that no further try mends: a record of the transaction cannot be written to its topic."""


class TakenOver(Exception):  # noqa: N818 - named for what it is
    """Another run of the same command on the same topics took over."""


def open_transactions(
    bootstrap_servers: str, what: str, kept: str, *, producer: Mapping[str, Any], timeout: float
) -> Transactions:
    """``producer`` are the settings of the transactional client; the rest as ``Transactions`` has it."""
    errors = ClientErrors(bootstrap_servers)
    client = Producer(errors.settings(producer))
    return Transactions(client, bootstrap_servers, what, kept, timeout, errors.advertised)


class Transactions:
    """``begin`` first. Methods raise TakenOver, ClusterUnreachable and TopicUnusable."""

    def __init__(
        self,
        producer: Producer,
        bootstrap_servers: str,
        what: str,
        kept: str,
        timeout: float,
        advertised_trouble: Callable[[], str] = lambda: "",
    ) -> None:
        """``timeout`` is in seconds; ``advertised_trouble()`` names advertised addresses that are not reached.

        For messages: ``what`` the command does, and what is ``kept`` of it when it ends early, a whole sentence.
        """
        self._advertised_trouble = advertised_trouble
        self._producer = producer
        self._bootstrap_servers = bootstrap_servers
        self._what, self._kept = what, kept
        self._timeout = timeout

    def begin(self) -> None:
        """Become the only one with this transactional id. What is read afterwards includes all that was committed."""
        try:
            self._patiently(self._producer.init_transactions)
        except KafkaException as error:
            raise self._unwell(error.args[0]) from None

    def commit(self, fill: Callable[[Transaction], None]) -> KafkaError | None:
        """Commit one transaction that ``fill`` produces to; tried again, as a whole, after a failure that may pass.

        Returns the error of a topic that refuses something in it: nothing of it was committed then.
        """
        attempts = 0
        while (error := self._tried(fill)) is not None and error.code() not in _REFUSALS:
            attempts += 1
            if attempts == _ATTEMPTS:
                raise self._unwell(error)
            time.sleep(_PAUSE_SECONDS)
        return error

    def _tried(self, fill: Callable[[Transaction], None]) -> KafkaError | None:
        """One transaction; None when it was committed, else the error that it was aborted for."""
        transaction = Transaction(self._producer)
        failed = transaction.failed
        try:
            with client_errors():
                self._producer.begin_transaction()
                fill(transaction)
                if not failed:
                    transaction.flush()
            if not failed:
                if transaction.offsets:
                    self._patiently(partial(self._producer.send_offsets_to_transaction, *transaction.offsets))
                self._patiently(self._producer.commit_transaction)
                return None
        except KafkaException as error:
            self._check(error.args[0])
            failed.append(error.args[0])
        except KeyboardInterrupt:
            # Left open it would block the readers of the topics until its timeout.
            with contextlib.suppress(KafkaException), client_errors():
                self._producer.abort_transaction(self._timeout)
            raise
        try:
            self._patiently(self._producer.abort_transaction)
        except KafkaException as error:
            raise self._unwell(error.args[0]) from None
        # Of a refused batch, some records only report that they failed with the rest.
        return next((error for error in failed if error.code() in _REFUSALS), failed[0])

    def _patiently(self, call: Callable[[float], None]) -> None:
        """Repeat a transactional call while it only needs more time, up to the timeout."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with client_errors():
                    call(max(0.1, deadline - time.monotonic()))
            except KafkaException as raised:
                error = raised.args[0]
                self._check(error)
                if not error.retriable():
                    raise
                if time.monotonic() >= deadline:
                    raise self._unwell(error) from None
                with client_errors():
                    self._producer.poll(0)
            else:
                return

    def _unwell(self, error: KafkaError) -> ClusterUnreachable:
        self._producer.poll(0)  # the reasons come by callbacks
        why = self._advertised_trouble() or f"{error.name()}: {error.str()}"
        return ClusterUnreachable(
            f"{self._bootstrap_servers} makes no transaction ({why}); run the command again when it does: {self._kept}"
        )

    def _check(self, error: KafkaError) -> None:
        """Raise for an error after which this producer is of no use."""
        if error.code() in ENDED:
            raise TakenOver(
                f"another {self._what} took over ({error.name()}); run this one again when it has ended: {self._kept}"
            ) from None
        if error.fatal():
            raise TopicUnusable(
                f"{self._bootstrap_servers} gives this client no transaction ({error.name()}: {error.str()}); grant it "
                "WRITE on the transactional id and on the topics"
            ) from None


class Transaction:
    """What is produced in one transaction."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._places: list[str] = []
        self.failed: list[KafkaError] = []
        """Why records were not written; with any, nothing is left but an abort."""
        self.offsets: tuple[list[TopicPartition], Any] | None = None
        """Offsets to commit with it, and the metadata of their group; None for none."""

    def produce(self, **record: Any) -> None:
        """Queue a record, given as to the client, and wait for that while the client's queue is full."""
        number = len(self._places)
        self._places.append("")
        while True:
            try:
                self._producer.produce(**record, on_delivery=partial(self._reported, number))
                return
            except BufferError:
                if not len(self._producer):
                    # Larger than the whole queue, which does not take it even when it is empty.
                    raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)) from None
                self._producer.poll(1.0)

    def flush(self) -> None:
        """Serve reports until all are there; message.timeout.ms bounds the wait."""
        while self._producer.flush(1.0):
            pass

    def written(self) -> list[str] | None:
        """Where the records stand that were produced so far, ``topic-partition-offset``; None where one was not."""
        self.flush()
        return None if self.failed else list(self._places)

    def _reported(self, number: int, error: KafkaError | None, message: Message | None) -> None:
        if error is not None:
            self.failed.append(error)
        elif message is not None:
            self._places[number] = f"{message.topic()}-{message.partition()}-{message.offset()}"
