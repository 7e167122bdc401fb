"""Producing records from outside a worker: idempotent, paced, every record acknowledged or reported.

``rexstream send`` produces with it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.kafka.clients.cluster import ClientErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.events import Header

_REPORTED_FAILURES = 20
_POLL_SECONDS = 0.1
_QUEUED_RECORDS = 10_000
"""Records handed to the library and not acknowledged: few enough for the last of them not to time out."""


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to produce. ``label`` names it in reports ("line 7"); ``partition`` None lets the key decide."""

    label: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    partition: int | None = None


@dataclass(slots=True)
class Delivery:
    """What became of the records so far. ``failures`` holds the first few reasons, each with its record's label."""

    acknowledged: int = 0
    failed: int = 0
    timed_out: int = 0
    """Of ``failed``: records that no broker acknowledged or refused in time."""
    failures: list[str] = field(default_factory=list)
    partitions: Counter[int] = field(default_factory=Counter)
    """Acknowledged records per partition."""


class Sender:
    """An idempotent producer for one topic, with ``murmur2_random`` partitioning."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        client: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``rate`` is in records a second; a record that is not acknowledged within ``timeout`` seconds has failed."""
        self.delivery = Delivery()
        self._topic = topic
        self._rate = rate
        self._clock = clock
        errors = ClientErrors(bootstrap_servers)
        self.advertised_trouble = errors.advertised
        """``advertised_trouble()``: which addresses that brokers advertise are not reached; empty without any."""
        self._producer = Producer(
            {
                **errors.settings(client),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                # Gaps from a record that timed out must not stop those behind it.
                "enable.gapless.guarantee": False,
                "message.timeout.ms": max(1000, round(timeout * 1000)),
                "queue.buffering.max.messages": _QUEUED_RECORDS,
                "linger.ms": 5,
            }
        )

    def send(self, records: Iterable[NewRecord], progress: Callable[[Delivery], None] = lambda _: None) -> None:
        """Hand over all records, ``rate`` a second from the first one on. ``progress`` is called after each."""
        started = 0.0
        for number, record in enumerate(records):
            if self._rate is not None:
                if number == 0:
                    started = self._clock()
                while (left := started + number / self._rate - self._clock()) > 0:
                    self._poll(min(left, _POLL_SECONDS))
            self._produce(record)
            progress(self.delivery)

    def finish(self, progress: Callable[[Delivery], None] = lambda _: None) -> Delivery:
        """Wait until every record has been acknowledged or has failed."""
        while self._producer.flush(_POLL_SECONDS):
            progress(self.delivery)
        progress(self.delivery)
        return self.delivery

    def _produce(self, record: NewRecord) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.delivery.acknowledged += 1
                self.delivery.partitions[message.partition() or 0] += 1
            else:
                self._failed(record.label, error)

        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=-1 if record.partition is None else record.partition,  # -1: the key decides
                    on_delivery=delivered,
                )
            except BufferError:
                self._poll(_POLL_SECONDS)
                continue
            except KafkaException as error:
                self._failed(record.label, error.args[0])
            break
        self._poll(0)

    def _poll(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
        except SystemError as error:
            # "returned NULL without setting an exception": the client loses that of a Ctrl-C during callbacks.
            raise KeyboardInterrupt from error

    def _failed(self, label: str, error: KafkaError) -> None:
        self.delivery.failed += 1
        self.delivery.timed_out += error.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT)
        if len(self.delivery.failures) < _REPORTED_FAILURES:
            self.delivery.failures.append(f"{label}: {error.str()}")
