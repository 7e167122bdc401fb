"""Publishes released outcomes at least once: an outcome is durable when every one of its outputs is acknowledged.

No output is dropped: what the brokers refuse waits in its topic's window and is produced again. Only where they refuse
it for what it is, its size above all, a result turns into a dead letter, and a dead letter into one that they take.

Outputs leave in order of release. After a refusal those that the client had in flight already may land before the
refused ones; nothing released later does. At least once allows no more: a restart, too, repeats older results after
newer ones.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.publish.producers import (
    BLOCKED_FAILURES,
    LATER,
    SILENT_SECONDS,
    PartitionCounts,
    Send,
    SendWindow,
    produce,
)
from consumer.kafka.publish.refusals import NO_TOPIC, NOTHING_LEFT, TOO_LARGE, Replacements, refused_for_itself

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.ledger import Commit, Release
    from consumer.events import Partition
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.clients.watchdog import StuckClientDetector

_log = structlog.stdlib.get_logger(__name__)

REPORT_SECONDS = 0.005
"""How long a round waits for delivery reports while some are due: bounds how long a command waits in the queue
meanwhile. Not only until the first report: those of each partition come by themselves, and each would cost a round."""


class AtLeastOncePublisher:
    """Belongs to the release thread. ``epoch_of(partition)`` is that of the ledger: what is revoked is not produced."""

    def __init__(
        self,
        producer: Producer,
        counts: PartitionCounts,
        replacements: Replacements,
        epoch_of: Callable[[Partition], int | None],
        observer: KafkaObserver,
        on_fatal: Callable[[BaseException], None],
        stuck: StuckClientDetector,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``stuck`` is called while delivery reports are awaited."""
        self._producer = producer
        self._counts = counts
        self._replacements = replacements
        self._epoch_of = epoch_of
        self._observer = observer
        self._on_fatal = on_fatal
        self._stuck = stuck
        self._clock = clock
        self._sleep = sleep
        self._windows: defaultdict[str, SendWindow] = defaultdict(SendWindow)
        self._durable: list[Release] = []
        self._numbers = count()
        self._full: str | None = None
        self._later = False
        """Whether some outputs wait only for the next round, to have their topic looked up."""

    @property
    def idle_seconds(self) -> float:
        """0 while reports are awaited: they come when ``run_once`` polls for them."""
        return 0.0 if self._later or self._awaits_reports else math.inf

    @property
    def _awaits_reports(self) -> bool:
        return any(window.in_flight for window in self._windows.values())

    @property
    def blocked(self) -> Mapping[str, frozenset[str]]:
        """Topics that take nothing, each with the input topics whose outputs wait for it."""
        now = self._clock()
        return {topic: window.inputs for topic, window in self._windows.items() if window.blocked(now)}

    @property
    def stuck(self) -> bool:
        """Whether all that is not acknowledged waits for topics that took nothing since ``try_again``, either.

        A topic that is only silent counts while others are acknowledged: else it may be the brokers that are away.
        """
        now = self._clock()
        brokers_answer = now - self._stuck.worked_at < SILENT_SECONDS
        return all(
            not window.inputs or window.refused_again or (brokers_answer and window.silent(now))
            for window in self._windows.values()
        )

    def try_again(self) -> None:
        """Try every topic that takes nothing once more, now: nobody may wait for its next turn."""
        for window in self._windows.values():
            window.try_again()

    def send(self, release: Release) -> None:
        """Accept the outputs of one released outcome. They leave at the next ``run_once``, in order of acceptance."""
        outputs = release.outcome.outputs
        if not outputs:
            self._durable.append(release)
        release.unacknowledged = len(outputs)
        for output in outputs:
            self._windows[output.topic].accept(Send(release, output, next(self._numbers)), self._clock())

    def commit(self, commits: Mapping[Partition, Commit]) -> Mapping[Partition, Commit]:
        """Returns all of them: in this mode the consumer commits them."""
        return commits

    def run_once(self, *, linger: bool = True) -> list[Release]:
        """Produce what may leave, and serve reports; returns what became durable, with the outputs that were published.

        Waits ``REPORT_SECONDS`` while reports are due, without ``linger`` only until the first of them comes. Raises
        ClientFailed when the producer gets no answer from brokers that answer others.
        """
        self._counts.new_round()
        now = self._clock()
        self._later = False
        # A window that found the producer's queue full goes first, or smaller records of other windows would keep it
        # full.
        topics = sorted(self._windows, key=lambda topic: topic != self._full) if self._full else list(self._windows)
        self._full = next((topic for topic in topics if not self._produce_from(self._windows[topic], now)), None)
        awaited = self._awaits_reports
        if awaited and linger:
            self._sleep(REPORT_SECONDS)
        self._producer.poll(0.0 if linger or not awaited else REPORT_SECONDS)
        if self._awaits_reports and self._clock() >= self._stuck.look_at and self._stuck.look():
            raise ClientFailed(
                "The Kafka producer gets no answer, while brokers answer a new client. Start the worker again; what is "
                "not committed is read again."
            )
        durable, self._durable = self._durable, []
        return durable

    def flush(self, seconds: float) -> int:
        """Wait up to ``seconds`` for what the producer holds; returns the number of outputs not acknowledged."""
        self._producer.flush(max(0.0, seconds))
        return sum(len(window.in_flight) + window.waits for window in self._windows.values())

    def _produce_from(self, window: SendWindow, now: float) -> bool:
        """Produce what the window lets out at ``now``; False when the producer's queue is full."""
        for send in window.leaving(now):
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
                # Larger than the whole queue: it would never fit.
                self._replace(send, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            except KafkaException as error:
                # Refused by the client itself; here a size is that of this one record, as the client's own limit is.
                if error.args[0].code() in TOO_LARGE:
                    self._replace(send, error.args[0])
                else:
                    self._refused(send, error.args[0])
            else:
                window.sent(send)
        if window.failures and not window.in_flight and not window.waits:
            window.forgive()
        return True

    def _reported(self, send: Send, error: KafkaError | None, _message: object) -> None:
        window = self._windows[send.output.topic]
        if error is None:
            self._stuck.worked_at = now = self._clock()
            window.acknowledged(send, now)
            release = send.release
            release.unacknowledged -= 1
            if not release.unacknowledged:
                self._durable.append(release)
            return
        window.reported(send)
        if not refused_for_itself(error, send.output):
            self._refused(send, error)
        elif send.alone:
            self._replace(send, error)
        else:
            window.narrow()
            window.put(send)

    def _replace(self, send: Send, error: KafkaError) -> None:
        """It was refused for what it is: publish what takes its place."""
        instead = self._replacements.replace(send.release, send.output, error)
        if instead is None:
            self._refused(send, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, NOTHING_LEFT))
            return
        send.output = instead
        self._windows[instead.topic].accept(send, self._clock())

    def _refused(self, send: Send, error: KafkaError) -> None:
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
            "a topic takes no output: nothing is dropped, it is tried again, and the input topics that feed it pause "
            "until it works",
            topic=topic,
            inputs=sorted(window.inputs),
            code=error.name(),
            reason=error.str(),
            retry_seconds=round(delay, 1),
            fix="raise max.message.bytes of the topic"
            if error.code() in TOO_LARGE
            else "check that the topic exists and that this client may write to it",
        )
