"""Sends reviews at a constant rate, open loop: a record is due at its time, whatever became of those before it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.reviews import Review
    from confluent_kafka import KafkaError

SEQUENCE = "chaos-sequence"
"""Header of every record that is sent: the number under which the audit finds what it owes."""


@dataclass(slots=True)
class Sent:
    """One record that was handed to the producer."""

    review: Review
    acknowledged: bool = False
    """Whether the broker has it. Where is not known after every retry, so the audit looks for its number."""


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
                "topic.metadata.refresh.interval.ms": 5000,  # a broker that starts may know no topic for a moment
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

    def stop(self, patience: float = 180.0) -> int:
        """No more records, and every one acknowledged within ``patience`` seconds; how many there are."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None
        left = self._producer.flush(patience)
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

    def _reported(self, sent: Sent, error: KafkaError | None, _: object) -> None:
        if error is None:
            sent.acknowledged = True
        else:
            self.refused.append(str(error))
