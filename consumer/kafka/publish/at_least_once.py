"""Publishes released outcomes at least once: an outcome is durable when every one of its outputs is acknowledged.

No output is dropped: what the brokers refuse waits in its topic's window and is produced again. Only its size turns a
result into a dead letter, and a dead letter into a smaller one.

Outputs leave in order of release. After a refusal those that the client had in flight already may land before the
refused ones; nothing released later does. At least once allows no more: a restart, too, repeats older results after
newer ones.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.publish.producers import (
    LATER,
    NO_TOPIC,
    NOTHING_LEFT,
    TOO_LARGE,
    Oversize,
    PartitionCounts,
    produce,
)
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.ledger import Release
    from consumer.events import Output, Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.clients.watchdog import StuckClientDetector

_log = structlog.stdlib.get_logger(__name__)

REPORT_SECONDS = 0.005
"""Longest wait for delivery reports while some are due: bounds how long a command waits in the queue meanwhile."""

BLOCKED_FAILURES = 2
"""A topic counts as blocked from the second refusal in a row: one alone is a topic being created, or a leader
moving."""

UNBOUNDED = 1 << 13
"""A window this large no longer limits anything: more than one batch of librdkafka's holds at 1 KB a record."""

BACKOFF = Backoff(first=0.25, limit=10.0, least=1.0)
"""Without jitter: only one output at a time is sent to a topic that refuses, however many wait."""


class AtLeastOncePublisher:
    """Belongs to the release thread. ``epoch_of(partition)`` is that of the ledger: what is revoked is not produced."""

    def __init__(
        self,
        producer: Producer,
        counts: PartitionCounts,
        oversize: Oversize,
        epoch_of: Callable[[Partition], int | None],
        observer: KafkaObserver,
        on_fatal: Callable[[BaseException], None],
        stuck: StuckClientDetector,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stuck`` is called while delivery reports are awaited."""
        self._producer = producer
        self._counts = counts
        self._oversize = oversize
        self._epoch_of = epoch_of
        self._observer = observer
        self._on_fatal = on_fatal
        self._stuck = stuck
        self._clock = clock
        self._windows: defaultdict[str, SendWindow] = defaultdict(SendWindow)
        self._durable: list[Release] = []
        self._numbers = count()
        self._in_flight = 0
        self._full: str | None = None
        self._later = False
        """Whether some outputs wait only for the next round, to have their topic looked up."""

    @property
    def idle_seconds(self) -> float:
        """0 while reports are awaited: they come when ``run_once`` polls for them."""
        return 0.0 if self._in_flight or self._later else math.inf

    @property
    def blocked(self) -> tuple[str, ...]:
        """Topics that refuse what is produced to them; their outputs wait."""
        return tuple(topic for topic, window in self._windows.items() if window.failures >= BLOCKED_FAILURES)

    def send(self, release: Release) -> None:
        """Accept the outputs of one released outcome. They leave at the next ``run_once``, in order of acceptance."""
        outputs = release.outcome.outputs
        if not outputs:
            self._durable.append(release)
        release.unacknowledged = len(outputs)
        for output in outputs:
            self._windows[output.topic].put(_Send(release, output, next(self._numbers)))

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> Mapping[Partition, tuple[int, int]]:
        """Returns all of ``offsets``: in this mode the consumer commits them."""
        return offsets

    def run_once(self, *, linger: bool = True) -> list[Release]:  # noqa: ARG002 - outputs never wait for more of them
        """Produce what may leave, and serve reports; returns what became durable, with the outputs that were published.

        Raises ClientFailed when the producer gets no answer from brokers that answer others.
        """
        self._counts.new_round()
        self._later = False
        # A window that found the producer's queue full goes first, or smaller records of other windows would keep it
        # full.
        topics = sorted(self._windows, key=lambda topic: topic != self._full) if self._full else list(self._windows)
        self._full = next((topic for topic in topics if not self._produce_from(self._windows[topic])), None)
        self._producer.poll(REPORT_SECONDS if self._in_flight else 0.0)
        if self._in_flight and self._clock() >= self._stuck.look_at and self._stuck.look():
            raise ClientFailed(
                "The Kafka producer gets no answer, while brokers answer a new client. Start the worker again; what is "
                "not committed is read again."
            )
        durable, self._durable = self._durable, []
        return durable

    def flush(self, seconds: float) -> int:
        """Wait up to ``seconds`` for what the producer holds; returns the number of outputs not acknowledged."""
        self._producer.flush(max(0.0, seconds))
        return self._in_flight + sum(len(window.waiting) for window in self._windows.values())

    def _produce_from(self, window: SendWindow) -> bool:
        """Produce what the window lets out; False when the producer's queue is full."""
        while window.open(self._clock()):
            send = window.take()
            release = send.release
            if self._epoch_of(release.partition) != release.record.epoch:
                continue
            partition = self._counts.place(send.output, release.partition.topic)
            if partition is None:
                self._refused(send, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, NO_TOPIC))
                break
            if partition == LATER:
                self._later = True
                window.put(send)
                break
            try:
                produce(self._producer, send.output, partition, partial(self._reported, send))
            except BufferError:
                if len(self._producer):
                    window.put(send)
                    return False
                self._too_large(send)  # larger than the whole queue: it would never fit
            except KafkaException as error:
                # Refused by the client itself; here a size is that of this one record, as the client's own limit is.
                if error.args[0].code() in TOO_LARGE:
                    self._too_large(send)
                else:
                    self._refused(send, error.args[0])
            else:
                self._in_flight += 1
                send.alone = window.sent()
        if window.failures and not window.waiting and not window.in_flight:
            window.forgive()
        return True

    def _reported(self, send: _Send, error: KafkaError | None, _message: object) -> None:
        window = self._windows[send.output.topic]
        self._in_flight -= 1
        window.in_flight -= 1
        if error is None:
            self._stuck.worked_at = self._clock()
            window.acknowledged()
            send.release.unacknowledged -= 1
            if not send.release.unacknowledged:
                self._durable.append(send.release)
        elif error.code() not in TOO_LARGE:
            self._refused(send, error)
        elif send.alone:
            self._too_large(send)
        else:
            window.narrow()
            window.put(send)

    def _too_large(self, send: _Send) -> None:
        smaller = self._oversize.replace(send.release, send.output)
        if smaller is None:
            self._refused(send, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, NOTHING_LEFT))
            return
        send.output = smaller
        self._windows[smaller.topic].put(send)

    def _refused(self, send: _Send, error: KafkaError) -> None:
        if error.fatal():
            self._on_fatal(ClientFailed(f"The Kafka producer failed for good: {error.name()}: {error.str()}"))
        topic = send.output.topic
        window = self._windows[topic]
        window.put(send)
        delay = window.failed(self._clock())
        if delay is None:
            return
        self._counts.forget(topic)  # a topic recreated with fewer partitions refuses what an old count sends to it
        self._observer.produce_refused(topic, error.name())
        # A first refusal often heals by itself; from the second on someone has to act.
        (_log.warning if window.failures < BLOCKED_FAILURES else _log.error)(
            "a topic takes no output: nothing is dropped, it is tried again, and consumption pauses until it works",
            topic=topic,
            code=error.name(),
            reason=error.str(),
            retry_seconds=round(delay, 1),
            fix="raise max.message.bytes of the topic"
            if error.code() in TOO_LARGE
            else "check that the topic exists and that this client may write to it",
        )


@dataclass(slots=True, eq=False)
class _Send:
    release: Release
    output: Output
    number: int
    """Place in the order of release."""
    alone: bool = False
    """Whether it was produced with nothing else in flight to its topic."""


@dataclass(slots=True, eq=False)
class SendWindow:
    """Flow of one output topic: what waits, how much may be in flight, when to try again after a refusal.

    Brokers refuse a whole batch when it is larger than the topic allows, or when one record in it is, and librdkafka
    fails every record of it (its issue 488). So a refused record proves nothing until it was refused alone: after a
    refusal the window sends one record by itself and, as long as that goes well, twice as many at each step. The same
    probing follows any other error, so a topic that is missing or forbidden sees one record every few seconds, not the
    whole backlog.
    """

    waiting: list[tuple[int, _Send]] = field(default_factory=list)
    """A heap, in order of release."""
    in_flight: int = 0
    """Outputs handed to the producer and not yet reported."""
    failures: int = 0
    """Refusals in a row, other than for size."""
    _size: int = UNBOUNDED
    _acknowledged: int = 0
    _not_before: float = 0.0

    def put(self, send: _Send) -> None:
        """Let ``send`` wait; one that is put back keeps its place in the order of release."""
        heapq.heappush(self.waiting, (send.number, send))

    def open(self, now: float) -> bool:
        """Whether one more may leave at ``now`` (monotonic seconds)."""
        fits = self._size >= UNBOUNDED or self.in_flight < self._size
        return bool(self.waiting) and fits and now >= self._not_before

    def take(self) -> _Send:
        """The next one in order. It is in flight only once ``sent`` was called."""
        return heapq.heappop(self.waiting)[1]

    def sent(self) -> bool:
        """One left. True when it is alone: then, and only then, a refusal for size is about this very record."""
        self.in_flight += 1
        return self._size == 1

    def acknowledged(self) -> None:
        """One that was in flight is durable."""
        self.failures = 0
        if self._size < UNBOUNDED:
            self._acknowledged += 1
            if self._acknowledged >= self._size:
                self._size *= 2
                self._acknowledged = 0

    def narrow(self) -> None:
        """After a refusal: let outputs out one at a time."""
        self._size = 1
        self._acknowledged = 0

    def failed(self, now: float) -> float | None:
        """One was refused, not for its size: the seconds until the next try, None for others of the same batch."""
        self.narrow()
        if now < self._not_before:
            return None
        delay = BACKOFF.pause(self.failures)
        self.failures += 1
        self._not_before = now + delay
        return delay

    def forgive(self) -> None:
        """Forget the refusals, once nothing waits and nothing is in flight that could fail or succeed."""
        self.failures = 0
        self._not_before = 0.0
