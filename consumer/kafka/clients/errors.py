"""Errors that end a worker: one of its Kafka clients failed for good, or has no offset to go on from."""

from __future__ import annotations

import logging
import math
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.clients.settings import way_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)


class ClientFailed(RuntimeError):  # noqa: N818 - named for what it is
    """A client was fenced, or failed for good. A successor reads again what is not committed, so nothing is lost."""


class UnreadableBatch(RuntimeError):  # noqa: N818 - named for what it is
    """A batch cannot be read: its bytes are damaged, or of a kind that this client does not know."""


UNREADABLE = frozenset(
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED, KafkaError.INVALID_MSG}
)
"""A failed checksum, a batch that cannot be unpacked, an unknown codec or format; the last is the broker's own word.

With librdkafka 2.16 whoever polls on after one of the first three meets nonsense: it looks for the next batch in the
middle of this one, and was seen to skip it, or to begin again at the start of the topic."""


def unreadable(topic: str, partition: int, offset: int, error: KafkaError) -> UnreadableBatch:
    """The exception for such an error, with the way out."""
    return UnreadableBatch(
        f"{topic}-{partition}: the batch at offset {offset} cannot be read ({error.name()}: {error.str()}), and "
        "nothing from it on is read or committed. Restore the replica, or let a broker with a sound one lead the "
        "partition. To give the batch up, wait until the group's offset has come up to it, stop the workers and set "
        "the offset behind it: kafka-dump-log.sh names its lastOffset, kafka-consumer-groups.sh --reset-offsets "
        f"--topic {topic}:{partition} --to-offset sets it."
    )


class NoSuchOffset(RuntimeError):  # noqa: N818 - named for what it is
    """The group's offset is not in the log, and ``auto.offset.reset`` is ``error``: a person must choose the offset."""


def kafka_cause(error: SystemError) -> KafkaException | None:
    """The client's own error behind a SystemError; None when there is none.

    confluent-kafka sets a fatal error's exception, serves delivery reports with it set, and so hides it behind
    "returned a result with an exception set" (2.16: flush, poll and produce).
    """
    return error.__cause__ if isinstance(error.__cause__, KafkaException) else None


@contextmanager
def client_errors() -> Iterator[None]:
    """Raise the client's own error where it hides behind a SystemError."""
    try:
        yield
    except SystemError as error:
        if (cause := kafka_cause(error)) is None:
            raise
        raise cause from None


OF_A_TOPIC = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID}
)
"""Why the offsets of one topic alone are not taken: this client may not read it any more, or it is gone. Of a commit of
several topics librdkafka 2.16 gives the error to every partition, also to those that the broker took."""

ENDED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_TXN_STATE,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
"""Another producer took the transactional id over, or the brokers ended the transaction. Some answer INVALID_TXN_STATE
then, which the client takes for an error that an abort could mend."""


def as_client_failure(error: BaseException) -> BaseException:
    """ClientFailed when ``error`` is, or hides, a client's fatal error; else ``error`` itself."""
    client = kafka_cause(error) if isinstance(error, SystemError) else error
    if not isinstance(client, KafkaException) or not client.args[0].fatal():
        return error
    return ClientFailed(f"A Kafka client failed for good: {client.args[0].name()}: {client.args[0].str()}")


REPEAT_SECONDS = 30.0
"""The same trouble is logged at most once in this time. Clients try to connect up to several times a second."""

_REMEMBERED = 100
_COUNT = re.compile(r"\d+(?=ms\b| identical| request)")
_REBALANCING = ("(ILLEGAL_GENERATION)", "(UNKNOWN_MEMBER_ID)", "(REBALANCE_IN_PROGRESS)")


class _Repeats:
    """What was logged in the last ``REPEAT_SECONDS``."""

    def __init__(self) -> None:
        self._logged: dict[object, float] = {}

    def due(self, trouble: object, now: float) -> bool:
        """Whether ``trouble`` has not been logged for ``REPEAT_SECONDS``; noted as logged at ``now`` (seconds) then."""
        if now - self._logged.get(trouble, -math.inf) < REPEAT_SECONDS:
            return False
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged[trouble] = now
        return True


def librdkafka_logger(client: str) -> logging.Logger:
    """The logger to hand to a client as ``logger=``; ``client`` is ``consumer``, ``producer`` or ``lag``.

    From its constructor on, the client's lines wait in a queue that its poll empties, so none reaches stderr. A client
    that cannot connect logs it at every try: a line is passed on once in ``REPEAT_SECONDS``, whatever durations and
    counts are in it.
    """
    found = logging.getLogger(f"librdkafka.{client}")
    if not found.filters:
        repeats = _Repeats()

        def passes(record: logging.LogRecord) -> bool:
            text = record.getMessage()
            # A rebalance fails a transaction, which is then repeated with the new generation: no error.
            if record.levelno == logging.ERROR and "Current transaction failed" in text and text.endswith(_REBALANCING):
                record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            return repeats.due(_COUNT.sub("0", text), record.created)

        found.addFilter(passes)
    return found


def error_callback(
    client: str,
    observer: KafkaObserver,
    on_fatal: Callable[[BaseException], None],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[KafkaError], None]:
    """An ``error_cb``. Errors other than fatal ones are logged for information: the client retries by itself.

    Each code is logged once in ``REPEAT_SECONDS``, with what to look at when a broker does not let the client in.
    """
    repeats = _Repeats()

    def on_error(error: KafkaError) -> None:
        observer.client_error(client, error.name())
        if error.fatal():
            on_fatal(ClientFailed(f"The Kafka {client} failed for good: {error.name()}: {error.str()}"))
            return
        fix = way_out(error.str())
        if error.code() == KafkaError._TRANSPORT and fix is None:
            return  # a lost connection has a line in the client's own log already
        if repeats.due(error.code(), clock()):
            _log.warning(
                "the client reports an error and goes on trying",
                client=client,
                reason=error.str(),
                code=error.name(),
                fix=fix,
            )

    return on_error
