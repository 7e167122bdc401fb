"""Sends reviews at a constant rate, open loop: a record is due at its time, whatever became of those before it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.reviews import Review
    from confluent_kafka import KafkaError, Message

SEQUENCE = "chaos-sequence"
"""Header of every record that is sent: the number under which the audit finds what it owes."""

_FLUSH_SECONDS = 180.0


@dataclass(slots=True)
class Sent:
    """One record that was handed to the producer."""

    review: Review
    place: tuple[int, int] | None = None
    """Partition and offset, once the broker acknowledged it."""


class Load:
    """Numbers its records from 0. ``sent`` is the list that the audit compares with."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self.sent: dict[int, Sent] = {}
        self.refused: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                # While the brokers are away the records wait.
                "message.timeout.ms": 0,
                "message.max.bytes": 16_000_000,
                "log_level": 0,
            }
        )
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, write: Callable[[int], Review], count: int = 1) -> None:
        """``count`` more now, beside what the thread sends."""
        for _ in range(count):
            self._produce(write)

    def start(self, rate: float, write: Callable[[int], Review]) -> None:
        """Send ``write(number)`` ``rate`` times a second until ``stop``."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(rate, write), name="chaos-load", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """No more records, and every one acknowledged; how many there are."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None
        left = self._producer.flush(_FLUSH_SECONDS)
        if left or self.refused:
            raise RuntimeError(f"{left} records of the load were not acknowledged; refused: {self.refused[:3]}")
        return len(self.sent)

    def _run(self, rate: float, write: Callable[[int], Review]) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            self._produce(write)
            due += 1 / rate
            while (left := due - time.monotonic()) > 0:
                self._producer.poll(min(left, 0.05))

    def _produce(self, write: Callable[[int], Review]) -> None:
        with self._lock:
            number = len(self.sent)
            review = write(number)
            self.sent[number] = sent = Sent(review)
        self._producer.produce(
            self.topic,
            review.value,
            review.key,
            headers=[(SEQUENCE, str(number).encode())],
            on_delivery=lambda error, message: self._reported(sent, error, message),
        )

    def _reported(self, sent: Sent, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self.refused.append(str(error))
            return
        acknowledged: Message = message
        sent.place = acknowledged.partition() or 0, acknowledged.offset() or 0
