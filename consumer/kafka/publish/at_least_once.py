"""Produces released outcomes, at least once: an outcome is durable when every one of its outputs is acknowledged.

No output is dropped: what the brokers refuse waits in its topic's window and is produced again. Only its size turns a
result into a dead letter, and a dead letter into one without its value, then without the headers that it carries.

Outputs leave in order of release. After a refusal those that the client had under way already may land before the
refused ones; nothing released later does. At least once allows no more: a restart, too, repeats older results after
newer ones.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import KafkaError, KafkaException

from consumer.delivery.send_window import SendWindow
from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.publish.producers import NOTHING_LEFT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.commands import Processed
    from consumer.delivery.ledger import Release
    from consumer.events import Output, Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.clients.watchdog import StuckClientDetector
    from consumer.kafka.publish.producers import Oversize, PartitionCounts

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.005
"""Wait for delivery reports while some are due: bounds how long a command lies in the queue meanwhile."""

TOPIC_MISSING = "UNKNOWN_TOPIC_OR_PART"
BLOCKED_FAILURES = 2
"""A window counts as blocked from the second refusal in a row: one alone is a topic being created, or a leader
moving."""


class ProducerClient(Protocol):
    """What the outbox needs of ``confluent_kafka.Producer``."""

    def produce(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: list[tuple[str, str | bytes | None]],
        on_delivery: Callable[[KafkaError | None, Any], None],
        timestamp: int,
    ) -> None:
        """Queue one record; raises BufferError when the queue is full, KafkaException when it is refused at once."""

    def poll(self, timeout: float) -> int:
        """Serve delivery reports for up to ``timeout`` seconds."""

    def flush(self, timeout: float) -> int:
        """Wait for all reports, up to ``timeout`` seconds; returns how many are still missing."""

    def __len__(self) -> int:
        """Records queued and not yet reported."""


@dataclass(slots=True)
class _Job:
    release: Release[Processed]
    missing: int


@dataclass(slots=True)
class _Send:
    job: _Job
    output: Output
    number: int
    alone: bool = False


class AtLeastOncePublisher:
    """One thread's. ``current(release)`` says whether its assignment still stands; what is revoked is not produced."""

    def __init__(
        self,
        producer: ProducerClient,
        counts: PartitionCounts,
        oversize: Oversize,
        current: Callable[[Release[Processed]], bool],
        observer: KafkaObserver,
        on_fatal: Callable[[BaseException], None],
        stalled: StuckClientDetector,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stalled`` is asked while reports are awaited."""
        self._producer = producer
        self._counts = counts
        self._oversize = oversize
        self._current = current
        self._observer = observer
        self._on_fatal = on_fatal
        self._stalled = stalled
        self._clock = clock
        self._windows: dict[str, SendWindow[_Send]] = {}
        self._durable: list[Release[Processed]] = []
        self._number = 0
        self._under_way = 0
        self._full: str | None = None

    @property
    def idle_seconds(self) -> float:
        """0 while reports are awaited: they come when ``run_once`` asks for them."""
        return 0.0 if self._under_way else math.inf

    @property
    def blocked(self) -> tuple[str, ...]:
        """Topics that refuse what is produced to them; their outputs wait."""
        return tuple(topic for topic, window in self._windows.items() if window.failures >= BLOCKED_FAILURES)

    def send(self, release: Release[Processed]) -> None:
        """Accept the outputs of one released outcome. They leave at the next ``run_once``, in order of acceptance."""
        outputs = release.outcome.outcome.outputs
        if not outputs:
            self._durable.append(release)
            return
        job = _Job(release, len(outputs))
        for output in outputs:
            self._number += 1
            self._wait(_Send(job, output, self._number))

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> Mapping[Partition, tuple[int, int]]:
        """All of ``offsets``: here they are the consumer's to commit."""
        return offsets

    def flush_soon(self) -> None:
        """Nothing waits for company here."""

    def run_once(self) -> list[Release[Processed]]:
        """Produce what may leave, and serve reports; returns what became durable.

        Raises ClientFailed when the producer has lost its way to brokers that are there.
        """
        # A window that found the producer's queue full goes first, or smaller records of other windows would keep it
        # full.
        windows = sorted(self._windows, key=lambda topic: topic != self._full) if self._full else list(self._windows)
        self._full = None
        for topic in windows:
            if not self._pump(self._windows[topic]):
                self._full = topic
                break
        self._producer.poll(REPORT_SECONDS if self._under_way else 0.0)
        if self._under_way and self._stalled.look():
            raise ClientFailed(
                "The Kafka producer gets no answer, while brokers answer a new client. Start the worker again; what is "
                "not committed is read again."
            )
        durable, self._durable = self._durable, []
        return durable

    def flush(self, seconds: float) -> int:
        """Wait up to ``seconds`` for what the producer holds; returns the number of outputs not acknowledged."""
        self._producer.flush(max(0.0, seconds))
        return self._under_way + sum(len(window) for window in self._windows.values())

    def _wait(self, send: _Send) -> None:
        window = self._windows.get(send.output.topic)
        if window is None:
            window = self._windows[send.output.topic] = SendWindow()
        window.put(send.number, send)

    def _pump(self, window: SendWindow[_Send]) -> bool:
        """Produce what the window lets out; False when the producer's queue is full."""
        while window.open(self._clock()):
            number, send = window.take()
            if not self._current(send.job.release):
                continue
            partition = self._counts.place(send.output, send.job.release.partition.topic)
            if partition is None:
                self._refused(window, send, TOPIC_MISSING, "it is missing, or no broker answers", was_under_way=False)
                break
            try:
                self._produce(send, partition)
            except BufferError:
                if len(self._producer):
                    window.put(number, send)
                    return False
                self._too_large(send)  # larger than the whole queue: it would never find room
            except KafkaException as error:
                self._refused_at_once(window, send, error.args[0])
            else:
                self._under_way += 1
                send.alone = window.sent()
        if not len(window) and not window.under_way and window.failures:
            window.forgive()
        return True

    def _produce(self, send: _Send, partition: int) -> None:
        output = send.output
        self._producer.produce(
            output.topic,
            value=output.value,
            key=output.key,
            partition=partition,
            headers=list(output.headers),
            on_delivery=partial(self._reported, send),
            timestamp=output.timestamp_ms or 0,  # 0 is now
        )

    def _refused_at_once(self, window: SendWindow[_Send], send: _Send, error: KafkaError) -> None:
        """``produce`` itself refused; here a size is that of this one record, as the client's own limit is."""
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._too_large(send)
        else:
            self._fatal(error)
            self._refused(window, send, error.name(), error.str(), was_under_way=False)

    def _reported(self, send: _Send, error: KafkaError | None, _message: object) -> None:
        window = self._windows[send.output.topic]
        self._under_way -= 1
        if error is None:
            self._stalled.works()
            window.acknowledged()
            send.job.missing -= 1
            if not send.job.missing:
                self._durable.append(send.job.release)
        elif error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            self._fatal(error)
            self._refused(window, send, error.name(), error.str(), was_under_way=True)
        elif send.alone:
            window.too_large_alone()
            self._too_large(send)
        else:
            window.too_large_together()
            self._wait(send)

    def _too_large(self, send: _Send) -> None:
        smaller = self._oversize.instead(send.job.release.outcome.record, send.output)
        if smaller is None:
            window = self._windows[send.output.topic]
            self._refused(window, send, "MSG_SIZE_TOO_LARGE", NOTHING_LEFT, was_under_way=False)
            return
        send.output = smaller
        send.alone = False
        self._wait(send)

    def _refused(self, window: SendWindow[_Send], send: _Send, code: str, reason: str, *, was_under_way: bool) -> None:
        window.put(send.number, send)
        before = window.failures
        delay = window.failed(self._clock(), was_under_way=was_under_way)
        if window.failures == before:
            return
        topic = send.output.topic
        self._counts.forget(topic)  # made anew with fewer partitions, it refuses for ever what it is sent by old counts
        self._observer.produce_refused(topic, code)
        # A first refusal often heals by itself; from the second on someone has to act.
        level = logging.WARNING if window.failures < BLOCKED_FAILURES else logging.ERROR
        logger.log(
            level,
            "Topic %s takes no output (%s: %s). Nothing is dropped: it is tried again in %.1f s, and consumption "
            "pauses until it works. Check that the topic exists and that this client may write to it.",
            topic,
            code,
            reason,
            delay,
        )

    def _fatal(self, error: KafkaError) -> None:
        if error.fatal():
            self._on_fatal(ClientFailed(f"The Kafka producer failed for good: {error.name()}: {error.str()}"))
