"""The poll thread: sole owner of the consumer. The runtime starts it; other threads call it through plain methods.

It never waits for a model call. Records are taken only as far as the in-flight bounds allow; when they are reached the
thread first stalls, at most a second, and only then pauses the topics that are full, because a pause throws their
prefetch away. While anything is paused it keeps polling, so that the group keeps its member.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Consumer, KafkaError

from consumer.config.client_rules import brokers_assign
from consumer.config.inputs import subscriptions
from consumer.config.topic_patterns import is_pattern
from consumer.delivery.admission import STALL_SECONDS, InFlight, RevokeBudget
from consumer.delivery.commands import Command, Delivered, Drain, EndReached
from consumer.events import Partition
from consumer.kafka.clients.errors import (
    UNREADABLE,
    ClientFailed,
    NoSuchOffset,
    error_callback,
    librdkafka_logger,
    unreadable,
)
from consumer.kafka.clients.settings import MAX_POLL_INTERVAL_MS
from consumer.kafka.clients.watchdog import OWN_SECONDS, StuckClientDetector
from consumer.kafka.consume.assignment import BACKPRESSURE, DRAINING, Assignment, Pauses, source_record
from consumer.kafka.consume.committer import Committer
from consumer.kafka.consume.membership import Membership
from consumer.kafka.consume.rebalance import Rebalance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message

    from consumer.events import SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)

POLL_SECONDS = 0.1
"""Longest wait in one poll: bounds how long a commit or a pause requested by another thread waits."""

BUSY_POLL_SECONDS = 0.025
"""The same while records are in flight: what becomes durable meanwhile is repeated after a crash."""

HANDOFF_RECORDS = 256
"""Most records handed over at once."""

JOIN_SECONDS = 60.0
"""Longest wait for a join, which takes about 3 s: a broker that does not know KIP-848 gives no assignment and no
error."""

POLL_INTERVAL_SHARE = 0.1
"""The share of max.poll.interval.ms that a revocation may wait for records in flight. The last commit, up to a minute,
comes on top; a member that does not poll for the whole interval loses all its partitions."""


@dataclass(frozen=True, slots=True)
class PollSettings:
    """What the poll thread reads, and within which bounds. ``client``: settings of librdkafka's consumer.

    ``topics``: the inputs, names and patterns.
    """

    client: Mapping[str, Any]
    topics: Sequence[str]
    in_flight_events: int
    in_flight_bytes: int
    revoke_seconds: float
    """The longest that a revocation waits for records in flight."""
    commit_pause_seconds: float
    """How long offsets may stay uncommitted because commits fail, before their topics pause."""
    asked_for: str
    """A topic, and no pattern, to ask brokers for."""
    notes: bool
    """Whether commits carry notes of what is done behind them (at_least_once)."""
    join_seconds: float = JOIN_SECONDS
    """How long a KIP-848 group may leave a join unanswered."""
    stall_seconds: float = STALL_SECONDS
    """How long intake waits for a topic at its bounds before that pauses. 0 where there are several lanes: a backlog is
    always at its bounds, and records of others would wait with it, and behind what the client has fetched of it."""


class PollThread:
    """Reads the input topics as a member of the group.

    ``on_records`` gets lists of records and must be quick and thread-safe; ``on_revoked`` gets the epochs that ended,
    whose unfinished records are to be dropped. ``brokers_answer()`` returns whether brokers answer a new client.
    Whatever ends the thread early goes to ``on_fatal``; so does UnreadableBatch, after which it takes no more records
    and goes on until it is closed.

    Other threads may call ``drain``, ``close``, ``pause``, ``resume``, ``commit`` and ``no_longer_in_flight``, read
    ``epochs`` and ``group_metadata``, and use what is for any thread in its public parts.
    """

    def __init__(
        self,
        settings: PollSettings,
        commands: SimpleQueue[Command],
        on_records: Callable[[list[SourceRecord]], None],
        on_revoked: Callable[[Mapping[Partition, int]], None],
        on_fatal: Callable[[BaseException], None],
        brokers_answer: Callable[[], bool],
        observer: KafkaObserver,
        clock: Callable[[], float] = time.monotonic,
        new_consumer: Callable[..., Consumer] = Consumer,
    ) -> None:
        self._topics = list(settings.topics)
        self._commands = commands
        self._on_records = on_records
        self._on_fatal = on_fatal
        self._observer = observer
        self._clock = clock
        self._drains: SimpleQueue[Drain] = SimpleQueue()
        self._closing = False
        client = settings.client
        poll_interval = float(client.get("max.poll.interval.ms", MAX_POLL_INTERVAL_MS)) / 1000
        budget = RevokeBudget(min(settings.revoke_seconds, POLL_INTERVAL_SHARE * poll_interval))
        self.in_flight = InFlight(settings.in_flight_events, settings.in_flight_bytes, budget, self._topics)
        self.in_flight.stall_seconds = settings.stall_seconds
        join_seconds = settings.join_seconds if brokers_assign(client) else None
        self.membership = Membership(client.get("group.instance.id"), join_seconds, clock)
        self._assignment = Assignment()
        self.pauses = Pauses(observer, self._topics)
        self.leader_epochs: Mapping[Partition, int] = self._assignment.leader_epochs
        """Of the last record that was read of each partition. From any thread."""
        self.committer = Committer(observer, self.pauses, self.leader_epochs, settings.commit_pause_seconds, clock)
        self.rebalance = Rebalance(
            self._assignment,
            self.pauses,
            self.in_flight,
            self.committer,
            self.membership,
            commands,
            on_revoked,
            self._show_life,
            observer,
            clock,
            settings.notes,
        )
        callbacks = {"on_commit": self.committer.on_commit, "error_cb": error_callback("consumer", observer, on_fatal)}
        self._new_consumer = partial(new_consumer, {**client, **callbacks}, logger=librdkafka_logger("consumer"))
        self._consumer = self._new_consumer()
        self._stuck = StuckClientDetector(
            lambda: self._consumer.list_topics(settings.asked_for, timeout=OWN_SECONDS), brokers_answer, clock
        )
        self.last_round = clock()
        """Monotonic seconds of the start of the latest round of the loop."""
        self.group_metadata: object = None
        """The consumer's group metadata as of the last round; with it the group fences a transaction's offsets.

        It is never newer than ``epochs`` read after it: the client enters a generation without a partition only after
        the callback that revokes it, and callbacks run between two updates of this.
        """
        self.pause = self.pauses.pause
        """``pause(reason, topics)``: stop consuming these input topics (without them: all); polling goes on."""
        self.resume = self.pauses.resume
        """``resume(reason)``: withdraw a reason; topics for which it was the last go on."""
        self.commit = self.committer.request
        """``commit(offsets)``: commit (epoch, offset) of each partition as long as its epoch is the current one."""
        self.no_longer_in_flight = self.in_flight.durable
        """``no_longer_in_flight(records, now)``: these records are durable, at ``now`` (monotonic seconds)."""
        self.thread = threading.Thread(target=self._run, name="rexstream-poll", daemon=True)

    @property
    def epochs(self) -> Mapping[Partition, int]:
        """Partitions assigned now, with their epochs. From any thread."""
        return self._assignment.epochs

    def drain(self, drain: Drain) -> None:
        """Take no more records; ``drain`` is answered by the release thread when nothing is in flight."""
        self.rebalance.left_whole = True
        self.pauses.pause(DRAINING)
        self._drains.put(drain)

    def close(self, deadline: float) -> None:
        """Commit what is committable, leave the group and end the thread; revocations may take until ``deadline``."""
        self.rebalance.close_by = deadline
        self._closing = True

    def _run(self) -> None:
        try:
            self.subscribe()
            while not self._closing:
                self.run_once()
        except BaseException as error:  # whatever ends this thread must end the worker
            self.close(self._clock())
            self._on_fatal(error)
        try:
            self._consumer.close()
        except BaseException as error:
            self._on_fatal(error)

    def subscribe(self) -> None:
        """Begin to join the group."""
        self._consumer.subscribe(
            subscriptions(self._topics),
            on_assign=self.rebalance.assigned,
            on_revoke=self.rebalance.revoked,
            on_lost=self.rebalance.lost,
        )

    def run_once(self) -> None:
        """One round: pauses, drains, commits, records."""
        self.last_round = now = self._clock()
        room = self.in_flight.intake(now, self.pauses.topics)
        if room.full or BACKPRESSURE in self.pauses.reasons:
            self.pauses.pause(BACKPRESSURE, room.full)
        # Taken before the pauses are applied: no record may follow a drain.
        drains = [self._drains.get() for _ in range(self._drains.qsize())]
        self.pauses.apply(self._consumer, self._assignment.epochs)
        for drain in drains:
            self._commands.put(drain)
        self.committer.send(self._consumer, self._assignment.epochs)
        if self.membership.again_at is not None:
            self._replace_client(self.membership.again_at)
            return
        # Read here, since the client serves one thread at a time: another thread would wait for the poll to end.
        self.group_metadata = self._consumer.consumer_group_metadata()
        if room.stall:
            self.in_flight.wait(POLL_SECONDS)
            self._observer.stalled(self._clock() - now)
            return
        first = self._consumer.poll(BUSY_POLL_SECONDS if self.in_flight.events else POLL_SECONDS)
        if first is not None:
            self._stuck.worked_at = self._clock()
            more = min(room.records, HANDOFF_RECORDS) - 1
            self._receive([first, *(self._consumer.consume(more, 0) if more else ())])
            return
        if not self.membership.joined:
            self.membership.look(self._consumer)
        if now >= self._stuck.look_at and self._stuck.look():
            # Not replaced here: closing such a client was seen to wait for ever.
            raise ClientFailed(
                "The Kafka consumer gets no answer, while brokers answer a new client. Start the worker again; what is "
                "not committed is read again."
            )

    def _receive(self, messages: Sequence[Message]) -> None:
        """Hand over records; then ends of partitions; then act on a failure of the client."""
        records: list[SourceRecord] = []
        ends: list[EndReached] = []
        failed: KafkaError | None = None
        now = self._clock()
        partition = Partition("", -1)
        for message in messages:
            error = message.error()
            offset = message.offset() or 0
            if (place := (message.topic() or "", message.partition() or 0)) != partition:  # they come by partition
                partition = Partition(*place)
            epoch = self._assignment.epochs.get(partition)
            if error is None and epoch is not None:
                leader_epoch = message.leader_epoch()
                if self._assignment.goes_back(partition, offset, leader_epoch):
                    self._hand_over(records)
                    records = []
                    self.rebalance.rewound(partition, offset)
                    continue  # as is all that follows of it: it is read again
                if not self._assignment.done or not self._assignment.is_done(partition, offset, message):
                    records.append(source_record(message, partition, epoch, now))
                self._assignment.reached(partition, offset + 1, leader_epoch)
            elif error is None:
                continue  # revoked between fetch and hand-over; its new owner reads it
            elif error.fatal() or error.code() == KafkaError._FATAL:
                failed = error
            elif error.code() in UNREADABLE and epoch is not None:
                # What came before it is finished and committed: whoever gives the batch up loses nothing else.
                self.pauses.pause(DRAINING)
                self._on_fatal(unreadable(*partition, offset, error))
                break  # the client has lost its place, so what follows may be anything
            elif error.code() != KafkaError._PARTITION_EOF:
                self._client_error(error, partition)
            elif epoch is not None and self._assignment.goes_back(partition, offset):
                self._hand_over(records)
                records = []
                self.rebalance.rewound(partition, offset)
            elif epoch is not None:
                ends.append(EndReached(partition, epoch, offset))
                self._assignment.done.pop(partition, None)
                self._assignment.reached(partition, offset)
        self._hand_over(records)
        for end in ends:
            self._commands.put(end)
        if self.rebalance.went_back:
            self.rebalance.read_again(self._consumer)
        if failed is not None:
            self._observer.client_error("consumer", failed.name())
            self.pauses.forget()
            self.rebalance.drop(self._assignment.epochs)  # whether we are still a member is unknown
            self.membership.refused(failed)

    def _hand_over(self, records: list[SourceRecord]) -> None:
        if records:
            self.in_flight.admit(records)
            self._commands.put(Delivered(records))  # before anyone can process them
            self._on_records(records)

    def _client_error(self, error: KafkaError, partition: Partition) -> None:
        self._observer.client_error("consumer", error.name())
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise NoSuchOffset(
                f"{partition}: the group has no offset, or one that is not in the log, and kafka.client's "
                "auto.offset.reset is error. Set the group's offset (kafka-consumer-groups --reset-offsets), or remove "
                "the setting to start at the earliest record."
            )
        if is_pattern(partition.topic) and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return  # it matches nothing now: ``Discovery`` says so
        _log.warning(
            "the client reports an error and goes on trying",
            topic=partition.topic,
            partition=partition.number,
            reason=error.str(),
            code=error.name(),
        )

    def _replace_client(self, again_at: float) -> None:
        """The group refused this member: at ``again_at`` try with a new client."""
        if self._clock() < again_at:
            self.in_flight.wait(POLL_SECONDS)
            return
        self._consumer.close()
        self._consumer = self._new_consumer()
        self.membership.again_at = None
        self.committer.reset()
        self._stuck.worked_at = self._clock()
        self.subscribe()

    def _show_life(self) -> None:
        """Called while a revocation waits: shows the watchdog that the thread lives and refreshes the group metadata.

        The client is in a new generation already, in which offsets of the leaving partitions can still be committed.
        """
        self.last_round = self._clock()
        self.group_metadata = self._consumer.consumer_group_metadata()
