"""The Kafka runtime: starts and connects the poll thread, the release thread, the lag watch and the watchdog.

It is the worker's only way to Kafka.

Records arrive by ``on_records``; each is answered once by ``processed``. What the runtime guarantees in return: an
offset is committed only when every output of every record before it is acknowledged (in exactly_once: in the same
transaction), results leave in the configured order, and what is in flight stays within the configured bounds.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

import structlog
from confluent_kafka import KafkaException

from consumer.config.inputs import Inputs
from consumer.config.topic_patterns import is_pattern
from consumer.delivery.admission import STALL_SECONDS
from consumer.delivery.commands import Command, Drain, Stop
from consumer.delivery.ledger import Ledger
from consumer.kafka.clients.cluster import any_answers
from consumer.kafka.clients.errors import UnreadableBatch, error_callback
from consumer.kafka.clients.settings import (
    consumer_settings,
    metadata_settings,
    producer_settings,
    transaction_settings,
)
from consumer.kafka.clients.watchdog import OWN_SECONDS, StuckClientDetector, Watchdog, WatchedThread
from consumer.kafka.consume.lag import INTERVAL_SECONDS, LagWatch
from consumer.kafka.consume.poll_thread import JOIN_SECONDS, PollSettings, PollThread
from consumer.kafka.publish.at_least_once import AtLeastOncePublisher
from consumer.kafka.publish.producers import PartitionCounts, Producers
from consumer.kafka.publish.refusals import Replacements
from consumer.kafka.publish.release_thread import ReleaseThread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.config.tree import Config
    from consumer.events import Output, Partition, SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.publish.exactly_once import TransactionalPublisher

_log = structlog.stdlib.get_logger(__name__)

REVOKE_SECONDS = 30.0
"""The longest that a rebalance may wait for records in flight, however long recent ones took. The whole group waits
with us; what is not durable by then is processed twice."""

POLL_HUNG_SECONDS = 120.0
"""Twice what the last commit of a revocation may take (librdkafka's socket.timeout.ms, a minute), the longest that the
poll thread waits in one round; more where that is set higher."""

RELEASE_HUNG_SECONDS = 30.0
"""On top of delivery.transaction_timeout_ms, which bounds the calls of a transactional producer."""

OTHERS_SECONDS = 3.0
"""Wait for brokers to answer a new client, when one of ours gets no answer."""

CLOSE_SECONDS = 5.0
"""Floor for leaving the group and flushing, also when the grace period is used up: a last commit and a leave are
two round trips."""


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """A snapshot of the runtime. Ages are seconds since the latest round of the thread's loop."""

    joined: bool
    assignment: Mapping[Partition, int]
    """Assigned partitions with their epochs."""
    paused: tuple[str, ...]
    """Why consumption of some or all input topics is paused."""
    paused_topics: Mapping[str, frozenset[str]]
    """The inputs, topics or patterns, that are paused, by reason."""
    pattern_topics: Mapping[str, int]
    """How many topics each pattern among the inputs matches; empty until that was looked for."""
    in_flight_events: int
    in_flight_bytes: int
    poll_age: float
    release_age: float
    poll_limit: float
    """The poll thread hangs above this age: no call that it makes may take so long."""
    release_limit: float
    uncommitted_seconds: float
    """For how long offsets could not be committed now; 0 when all that was tried is committed."""
    commit_error: str
    """Why: the error of the latest commit that failed; empty without one."""
    lag: Mapping[Partition, int]
    lag_ages: Mapping[Partition, float]
    """Seconds since each partition's lag was queried, or since it was first to be."""
    blocked_outputs: Mapping[str, frozenset[str] | None]
    """Output topics that take nothing now, each with the input topics that wait for it; None: all of them."""
    unreachable: str = ""
    """Brokers that this worker needs and does not reach, with the way out; empty without any."""
    unreachable_topics: frozenset[str] = frozenset()
    """The input topics of which every partition that is assigned is led by such a broker."""


class KafkaRuntime:
    """One consumer, one producer.

    Callbacks run on the runtime's threads and must be quick. ``on_records`` receives polled records; ``on_revoked`` the
    epochs that ended, whose records need no ``processed`` any more (it would be ignored). ``refused`` makes the dead
    letter of a result that its topic refuses for its size, or for having no key. ``on_fatal`` is called with what ended
    the runtime: the process should then exit; its successor reads again what was not committed. After UnreadableBatch
    it can drain. ``on_hang`` is called with the reason where a thread hangs in a call of its client, before it or as a
    drain ends: to log every thread's stack. ``http_port`` is told to the group (``clients/http_port.py``).

    Raises ValueError for settings that cannot work, KafkaException for those that librdkafka refuses.
    """

    def __init__(
        self,
        config: Config,
        inputs: Sequence[str],
        on_records: Callable[[list[SourceRecord]], None],
        on_revoked: Callable[[Mapping[Partition, int]], None],
        refused: Callable[[SourceRecord, Output, Literal["size", "no key"]], Output],
        on_fatal: Callable[[BaseException], None],
        observer: KafkaObserver,
        *,
        on_hang: Callable[[str], None],
        http_port: int | None = None,
        revoke_seconds: float = REVOKE_SECONDS,
        join_seconds: float = JOIN_SECONDS,
        lag_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._on_fatal, self._on_hang = on_fatal, on_hang
        self._failed = threading.Event()
        self._commands: SimpleQueue[Command] = SimpleQueue()
        # Built first: both check the configuration, and a consumer that is not closed would keep its membership.
        transactional = config.delivery.mode == "exactly_once"
        # A transactional publisher meets a fatal error in its calls, and decides whether a new producer may take over.
        on_error = error_callback("producer", observer, _log_fatal if transactional else self._fatal)

        # The group's generation fences zombies, so no other process has to take the id over.
        own = f"{config.kafka.group_id}-{uuid.uuid4().hex}"
        settings = transaction_settings(config, own) if transactional else producer_settings(config)
        producers = Producers({**settings, "error_cb": on_error})
        others = partial(_answers, config)
        asked_for = next((each for each in inputs if not is_pattern(each)), config.delivery.dead_letter_topic)
        self._poll_thread = PollThread(
            PollSettings(
                consumer_settings(config, http_port),
                inputs,
                config.limits.in_flight_events,
                config.limits.in_flight_bytes,
                revoke_seconds,
                config.delivery.commit_pause_seconds,
                asked_for,
                not transactional,
                join_seconds,
                STALL_SECONDS if len(config.lanes()) == 1 else 0.0,
            ),
            self._commands,
            on_records,
            on_revoked,
            self._fatal,
            others,
            observer,
        )
        self._lag = LagWatch(
            metadata_settings(config),
            config.kafka.group_id,
            lambda: self._poll_thread.epochs,
            observer,
            lag_seconds,
            inputs=inputs,
            joined=lambda: self._poll_thread.membership.joined,
        )
        read = Inputs(inputs)
        counts = PartitionCounts(
            lambda topic, seconds: (self._lag if topic in read else producers).partitions(topic, seconds)
        )
        replacements = Replacements(config.delivery.dead_letter_topic, refused, observer)

        ledger = Ledger(config.delivery.release_order, notes=not transactional)
        publisher: AtLeastOncePublisher | TransactionalPublisher
        if transactional:
            # Not at the top: a worker without transactions should not load them.
            from consumer.kafka.publish.exactly_once import TransactionalPublisher

            # No call through the producer: brokers may answer one that has lost its coordinator.
            stuck = StuckClientDetector(None, others)
            publisher = TransactionalPublisher(
                producers, counts, replacements, self._poll_thread, observer, stuck, config.delivery
            )
        else:
            stuck = StuckClientDetector(partial(producers.partitions, asked_for, OWN_SECONDS), others)
            publisher = AtLeastOncePublisher(
                producers.current, counts, replacements, ledger.epoch, observer, self._fatal, stuck
            )
        self._release = ReleaseThread(
            ledger,
            self._commands,
            publisher,
            self._poll_thread,
            observer,
            self._fatal,
            config.delivery.commit_interval_ms / 1000,
        )
        commit_seconds = float(config.kafka.client.get("socket.timeout.ms", 0)) / 1000
        self._poll_limit = max(POLL_HUNG_SECONDS, 2 * commit_seconds)
        self._release_limit = config.delivery.transaction_timeout_ms / 1000 + RELEASE_HUNG_SECONDS
        self._watchdog = Watchdog(
            (
                WatchedThread("poll", lambda: self._poll_thread.last_round, self._poll_limit),
                WatchedThread("release", lambda: self._release.last_round, self._release_limit),
            ),
            on_hang,
            self._fatal,
        )
        self.processed = self._release.processed
        """``processed(record, outcome)``: hand back what a record turned into. From any thread, in any order, once."""
        self.pause = self._poll_thread.pause
        """``pause(reason, topics)``: stop consuming the inputs of these topics (without them: all), and no others, for
        this reason; what is in flight goes on. From any thread."""
        self.resume = self._poll_thread.resume
        """``resume(reason)``: withdraw the reason of a pause. From any thread."""
        self.limit = self._poll_thread.in_flight.limit
        """``limit(topic, records)``: have at most so many records of an input in flight from now on; None: as
        many as configured."""
        self.lag_age = self._lag.age
        """``lag_age()``: seconds since the oldest query of a lag. From any thread."""

    def start(self) -> None:
        """Join the group and begin."""
        for each in (self._release, self._poll_thread, self._lag, self._watchdog):
            each.thread.start()

    def drain(self, grace_seconds: float) -> bool:
        """Take no more records, make those in flight durable within ``grace_seconds``, commit, leave the group, end.

        True when nothing was left in flight or uncommitted and all threads ended, but for that of a consumer without
        partitions: a successor repeats nothing. It does not wait for what only waits for outputs that take nothing,
        tried once more, and returns at the latest ``CLOSE_SECONDS`` (twice over) after the grace period, also when a
        client hangs: its threads are daemons. With 0 seconds what is durable is committed and the rest abandoned.
        """
        deadline = time.monotonic() + grace_seconds
        self._watchdog.end()  # from here on this method bounds every wait
        emptied = self._await_empty(deadline)
        if events := self._poll_thread.in_flight.events:
            _log.warning(
                "records are not durable within the grace period; they are read again"
                if emptied is None
                else "records are left that wait for outputs which take nothing; they are read again",
                records=events,
                grace_seconds=grace_seconds,
                blocked_outputs=sorted(self._release.blocked),
            )
        self._lag.end()
        end = max(deadline, time.monotonic() + CLOSE_SECONDS)
        self._poll_thread.close(deadline)
        # A client closes only when all commits are answered, also of partitions that it lost (librdkafka issue 3740).
        idle = bool(emptied) and not self._poll_thread.epochs and not self._poll_thread.rebalance.commits_last
        end = min(end, time.monotonic() + 2 * CLOSE_SECONDS) if idle else end
        left = self._join(self._poll_thread.thread, end) or idle
        # Stopped only now: to leave the group, the poll thread needed the release thread's last offsets.
        end = max(end, time.monotonic() + CLOSE_SECONDS)
        self._commands.put(Stop(max(0.0, min(CLOSE_SECONDS, end - time.monotonic() - 1.0))))
        if ended := self._join(self._release.thread, end):
            self._lag.close()
        return bool(emptied) and left and ended and self._poll_thread.rebalance.left_whole and not self._failed.is_set()

    def uncommitted_seconds(self) -> float:
        """For how long offsets could not be committed now, 0 when all that was tried is committed. From any thread."""
        return max(0.0, time.monotonic() - self._poll_thread.committer.uncommitted_since)

    def status(self) -> RuntimeStatus:
        """A snapshot of the runtime. From any thread."""
        now = time.monotonic()
        reasons = self._poll_thread.pauses.reasons
        return RuntimeStatus(
            joined=self._poll_thread.membership.joined,
            assignment=self._poll_thread.epochs,
            paused=tuple(sorted(reasons)),
            paused_topics=reasons,
            pattern_topics=self._lag.discovery.counts,
            in_flight_events=self._poll_thread.in_flight.events,
            in_flight_bytes=self._poll_thread.in_flight.bytes,
            poll_age=now - self._poll_thread.last_round,
            release_age=now - self._release.last_round,
            poll_limit=self._poll_limit,
            release_limit=self._release_limit,
            uncommitted_seconds=self.uncommitted_seconds(),
            commit_error=self._poll_thread.committer.code,
            lag=self._lag.lags,
            lag_ages=self._lag.ages(),
            blocked_outputs=self._release.blocked,
            unreachable=self._lag.unreachable,
            unreachable_topics=self._lag.unreachable_topics,
        )

    def _await_empty(self, deadline: float) -> bool | None:
        """Whether all that was in flight is durable in time; then wait for the answers to the commits as well.

        False, and early, where nothing more will become durable; None where the time was too short to know.

        A commit in the middle of a rebalance is refused and has to be tried again while we are still a member.
        """
        reply: SimpleQueue[bool] = SimpleQueue()
        self._poll_thread.drain(Drain(reply))
        emptied: bool | None = None
        while emptied is None and self._may_wait(deadline):
            with suppress(Empty):
                emptied = reply.get(timeout=max(0.0, min(0.2, deadline - time.monotonic())))
        committer = self._poll_thread.committer
        while emptied is not None and not committer.all_answered and self._may_wait(deadline):
            time.sleep(0.02)
        return emptied

    def _join(self, thread: threading.Thread, deadline: float) -> bool:
        if thread.is_alive():  # else it ended, or was never started
            thread.join(max(0.0, deadline - time.monotonic()))
        if hangs := thread.is_alive():
            _log.error("a thread hangs; the process must end without it", thread=thread.name)
            self._on_hang(f"The thread {thread.name} does not end.")
        return not hangs

    def _may_wait(self, deadline: float) -> bool:
        return not self._failed.is_set() and time.monotonic() < deadline

    def _fatal(self, error: BaseException) -> None:
        if not self._failed.is_set():
            if not isinstance(error, UnreadableBatch):  # after that one a drain still works
                self._failed.set()
            _log.critical("the Kafka runtime ends", reason=str(error))
            self._on_fatal(error)


def _log_fatal(error: BaseException) -> None:
    _log.warning("the producer failed; a new one may take its place", reason=str(error))


def _answers(config: Config) -> bool:
    """Whether brokers answer a client that has just been made."""
    try:
        return any_answers(config.kafka.bootstrap_servers, client=metadata_settings(config), timeout=OTHERS_SECONDS)
    except (KafkaException, ValueError):
        return False  # where certificates or passwords are just being replaced: nothing is known then
