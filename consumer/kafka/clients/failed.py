"""Errors that end a worker: one of its Kafka clients is of no use any more, or does not know where to go on."""

from __future__ import annotations

from confluent_kafka import KafkaException


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
