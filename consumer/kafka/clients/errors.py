"""Errors that end a worker: one of its Kafka clients is of no use any more, or does not know where to go on."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.clients.settings import way_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.kafka.clients.observer import KafkaObserver


class ClientFailed(RuntimeError):  # noqa: N818 - named for what it is
    """A client was fenced, or failed for good. A successor reads again what is not committed, so nothing is lost."""


class NoSuchOffset(RuntimeError):  # noqa: N818 - named for what it is
    """The group's offset is not in the log, and ``auto.offset.reset`` is ``error``: where to go on is for a person."""


def kafka_cause(error: SystemError) -> KafkaException | None:
    """The client's own error behind a SystemError; None when there is none.

    confluent-kafka sets a fatal error's exception, serves delivery reports with it set, and so hides it behind
    "returned a result with an exception set" (2.16: flush, poll and produce).
    """
    return error.__cause__ if isinstance(error.__cause__, KafkaException) else None


def as_client_failure(error: BaseException) -> BaseException:
    """``error``, as ClientFailed where a client's fatal error is what it comes from."""
    client = kafka_cause(error) if isinstance(error, SystemError) else error
    if not isinstance(client, KafkaException) or not client.args[0].fatal():
        return error
    return ClientFailed(f"A Kafka client failed for good: {client.args[0].name()}: {client.args[0].str()}")


# librdkafka's own log lines and errors, led into Python's logging.

REPEAT_SECONDS = 30.0
"""How often one and the same trouble is told. Clients try to connect up to several times a second."""

_REMEMBERED = 100
_COUNT = re.compile(r"\d+(?=ms\b| identical| request)")


class _Repeats(logging.Filter):
    """Passes a line on when none that differs only in durations and counts was told of late."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = _COUNT.sub("0", record.getMessage())
        if record.created - self._told.get(text, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[text] = record.created
        return True


_REBALANCING = ("(ILLEGAL_GENERATION)", "(UNKNOWN_MEMBER_ID)", "(REBALANCE_IN_PROGRESS)")


def _abortable_is_no_error(record: logging.LogRecord) -> bool:
    """A rebalance fails a transaction, which is then repeated with the new generation."""
    text = record.getMessage()
    if record.levelno == logging.ERROR and "Current transaction failed" in text and text.endswith(_REBALANCING):
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


def librdkafka_logger(client: str) -> logging.Logger:
    """The logger to hand to a client as ``logger=``; ``client`` is ``consumer``, ``producer`` or ``lag``.

    From its constructor on, the client's lines wait in a queue that its poll empties, so none reaches stderr. A client
    that cannot connect says so at every try: a line is passed on once in ``REPEAT_SECONDS``.
    """
    found = logging.getLogger(f"librdkafka.{client}")
    if not any(isinstance(filter_, _Repeats) for filter_ in found.filters):
        found.addFilter(_Repeats())
        found.addFilter(_abortable_is_no_error)
    return found


def error_callback(
    client: str,
    observer: KafkaObserver,
    on_fatal: Callable[[BaseException], None],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[KafkaError], None]:
    """An ``error_cb``. Errors other than fatal ones are told for information: the client retries by itself.

    Each code is told once in ``REPEAT_SECONDS``, with what to look at when a broker does not let the client in.
    """
    logger = logging.getLogger(__name__)
    said: dict[int, float] = {}

    def on_error(error: KafkaError) -> None:
        observer.client_error(client, error.name())
        if error.fatal():
            on_fatal(ClientFailed(f"The Kafka {client} failed for good: {error.name()}: {error.str()}"))
            return
        fix = way_out(error.str())
        if error.code() == KafkaError._TRANSPORT and fix is None:
            return  # a lost connection has a line in the client's own log already
        now = clock()
        if now - said.get(error.code(), -REPEAT_SECONDS) >= REPEAT_SECONDS:
            said[error.code()] = now
            what = f"{error.str()} ({error.name()})"
            logger.warning("%s: %s; %s", client, what, f"{fix}; it goes on trying" if fix else "it goes on trying")

    return on_error
