"""librdkafka's own log lines and errors, led into Python's logging."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.kafka.observer import EdgeObserver


def librdkafka_logger(client: str) -> logging.Logger:
    """The logger to hand to a client as ``logger=``; ``client`` is ``consumer``, ``producer`` or ``lag``.

    From its constructor on, the client's lines wait in a queue that its poll empties, so none reaches stderr.
    """
    return logging.getLogger(f"librdkafka.{client}")


def error_callback(
    client: str, observer: EdgeObserver, on_fatal: Callable[[BaseException], None]
) -> Callable[[KafkaError], None]:
    """An ``error_cb``. Errors other than fatal ones are told for information: the client retries by itself."""
    logger = logging.getLogger(__name__)

    def on_error(error: KafkaError) -> None:
        observer.client_error(client, error.name())
        if error.fatal():
            on_fatal(RuntimeError(f"The Kafka {client} failed for good: {error.name()}: {error.str()}"))
        elif error.code() != KafkaError._TRANSPORT:  # every lost connection has a line in the client's own log already
            logger.warning("%s: %s (%s); the client goes on trying", client, error.str(), error.name())

    return on_error
