"""The poll thread: sole owner of the consumer.

It never waits for a model call. Records are taken only as far as the in-flight bounds allow; when they are reached the
thread first stalls, at most a second, and only then pauses partitions, because a pause throws the prefetch away. While
anything is paused it keeps polling, so that the group keeps its member.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from consumer.delivery.admission import InFlight, RevokeBudget
from consumer.delivery.commands import Assigned, Command, Delivered, Drain, EndReached, Lost, Revoke
from consumer.events import Partition
from consumer.kafka.clients.errors import ClientFailed, NoSuchOffset, error_callback, librdkafka_logger
from consumer.kafka.clients.settings import MAX_POLL_INTERVAL_MS
from consumer.kafka.clients.watchdog import OWN_SECONDS, StuckClientDetector
from consumer.kafka.consume.assignment import Assignment, Pauses, source_record
from consumer.kafka.consume.committer import Committer
from consumer.kafka.consume.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka import Message

    from consumer.delivery.admission import Admission
    from consumer.events import SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Longest wait in one poll: bounds how long a commit or a pause asked for by another thread waits."""

HANDOFF_RECORDS = 256
"""Records handed over at once."""

REPLY_MARGIN_SECONDS = 5.0
"""The release thread answers a revocation at its deadline; this much later it is taken for dead."""

JOIN_SECONDS = 60.0
"""A broker that does not know KIP-848 gives no assignment and no error. A join takes about 3 s."""

POLL_INTERVAL_SHARE = 0.1
"""Of max.poll.interval.ms, the most that a revocation may wait for records in flight. The last commit, up to a minute,
comes on top; a member that is silent for the whole of it loses everything."""

BACKPRESSURE = "backpressure"
DRAINING = "draining"


class PollThread:
    """Reads ``topics`` as a member of the group.

    ``on_records`` gets lists of records and must be quick and thread-safe; ``on_revoked`` gets the epochs that ended,
    whose unfinished records are to be dropped. ``others()`` says whether brokers answer a new client. Whatever ends the
    thread early goes to ``on_fatal``.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topics: Sequence[str],
        admission: Admission,
        commands: SimpleQueue[Command],
        on_records: Callable[[list[SourceRecord]], None],
        on_revoked: Callable[[Mapping[Partition, int]], None],
        observer: KafkaObserver,
        on_fatal: Callable[[BaseException], None],
        revoke_seconds: float,
        others: Callable[[], bool],
        join_seconds: float = JOIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        new_consumer: Callable[..., Consumer] = Consumer,
    ) -> None:
        self._topics = list(topics)
        self._commands = commands
        self._on_records = on_records
        self._on_revoked = on_revoked
        self._observer = observer
        self._on_fatal = on_fatal
        poll_interval = float(settings.get("max.poll.interval.ms", MAX_POLL_INTERVAL_MS)) / 1000
        budget = RevokeBudget(min(revoke_seconds, POLL_INTERVAL_SHARE * poll_interval))
        self._in_flight = InFlight(admission, budget)
        self._membership = Membership(
            settings.get("group.instance.id"),
            join_seconds if settings.get("group.protocol") == "consumer" else None,
            clock,
        )
        self._clock = clock
        self._drains: SimpleQueue[Drain] = SimpleQueue()
        self._closing: float | None = None
        self._assignment = Assignment()
        self._committer = Committer(observer, clock)
        self._group_metadata: object = None
        self.left_whole = True
        """Whether no assignment that ended since a drain began left records to be repeated by their next owner."""
        self.last_round = clock()
        """Monotonic seconds at which the loop last came round."""
        own = {"on_commit": self._committer.answered, "error_cb": error_callback("consumer", observer, on_fatal)}
        self._new_consumer = partial(new_consumer, {**settings, **own}, logger=librdkafka_logger("consumer"))
        self._consumer = self._new_consumer()
        self._pauses = Pauses(observer)
        self._stalled = StuckClientDetector(
            lambda: self._consumer.list_topics(self._topics[0], timeout=OWN_SECONDS), others, clock
        )
        self.thread = threading.Thread(target=self._run, name="rexstream-poll", daemon=True)

    # What other threads may call.

    @property
    def epochs(self) -> Mapping[Partition, int]:
        """Partitions assigned now, with their epochs."""
        return self._assignment.epochs

    @property
    def group_metadata(self) -> object:
        """What the offsets of a transaction need to be fenced by the group; as old as the poll thread's last turn.

        Never newer than ``epochs`` are when they are read after it: the client enters another generation without a
        partition only after the callback that takes it away, and callbacks run between two of these readings.
        """
        return self._group_metadata

    @property
    def joined(self) -> bool:
        """Whether the group has accepted this member; its assignment may be empty."""
        return self._membership.joined

    @property
    def paused(self) -> tuple[str, ...]:
        """Reasons for which consumption is paused."""
        return self._pauses.reasons

    @property
    def in_flight(self) -> tuple[int, int]:
        """Records and bytes delivered and not yet durable."""
        return self._in_flight.count

    def pause(self, reason: str) -> None:
        """Stop consuming until ``resume(reason)``; polling goes on."""
        self._pauses.want(reason)
        self._in_flight.wake()

    def resume(self, reason: str) -> None:
        """Withdraw ``reason``; consumption goes on when it was the last."""
        self._pauses.withdraw(reason)
        self._in_flight.wake()

    def limit(self, records: int | None) -> None:
        """Have at most so many records in flight; None: as many as configured."""
        self._in_flight.limit(records)

    @property
    def settled(self) -> bool:
        """Whether all commits asked for are answered."""
        return self._committer.settled

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        """Commit (epoch, offset) of each partition as long as its epoch is the current one."""
        self._committer.ask(offsets)

    def no_longer_in_flight(self, records: list[tuple[Partition, int, int]], seconds: Iterable[float] = ()) -> None:
        """These records (partition, epoch, bytes) are durable and make room; they were in flight for ``seconds``."""
        self._in_flight.durable(records, seconds)

    def drain(self, drain: Drain) -> None:
        """Take no more records; ``drain`` is answered by the release thread when nothing is in flight."""
        self._pauses.want(DRAINING)
        self._drains.put(drain)
        self._in_flight.wake()

    def close(self, deadline: float) -> None:
        """Commit what is committable, leave the group and end the thread; revocations may take until ``deadline``."""
        self._closing = deadline
        self._in_flight.wake()

    # The poll thread.

    def _run(self) -> None:
        try:
            self.subscribe()
            while self._closing is None:
                self.run_once()
        except BaseException as error:  # whatever ends this thread must end the worker
            self._closing = self._clock()
            self._on_fatal(error)
        try:
            self._consumer.close()
        except BaseException as error:
            self._on_fatal(error)

    def subscribe(self) -> None:
        """Begin to join the group."""
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def run_once(self) -> None:
        """One round: pauses, drains, commits, records."""
        self.last_round = now = self._clock()
        verdict, room = self._in_flight.verdict(now)
        if verdict == "pause":
            self._pauses.want(BACKPRESSURE)
        elif verdict == "resume":
            self._pauses.withdraw(BACKPRESSURE)
        drains = self._taken_drains()  # before the pauses are applied: no record may follow a drain
        self._pauses.apply(self._consumer, self._assignment.epochs)
        for drain in drains:
            self._commands.put(drain)
        self._committer.send(self._consumer, self._assignment.epochs)
        if self._membership.waiting:
            self._come_again()
            return
        # Here, since the client lets one thread at a time call it, and another one would wait for the poll to end.
        self._group_metadata = self._consumer.consumer_group_metadata()
        if verdict == "stall":
            self._stall()
            return
        first = self._consumer.poll(POLL_SECONDS)
        if first is not None:
            self._stalled.works()
            more = min(room, HANDOFF_RECORDS) - 1
            self._receive([first, *(self._consumer.consume(more, 0) if more else ())])
            return
        if not self.joined:
            self._membership.look(self._consumer)
        if self._stalled.look():
            # Not replaced here: closing such a client was seen to wait for ever.
            raise ClientFailed(
                "The Kafka consumer gets no answer, while brokers answer a new client. Start the worker again; what is "
                "not committed is read again."
            )

    def _come_again(self) -> None:
        if self._membership.again():
            self._consumer.close()
            self._consumer = self._new_consumer()
            self._committer.begin_anew()
            self._stalled.works()
            self.subscribe()
        else:
            self._in_flight.wait(POLL_SECONDS)

    def _stall(self) -> None:
        started = self._clock()
        self._in_flight.wait(POLL_SECONDS)
        self._observer.stalled(self._clock() - started)

    def _receive(self, messages: Sequence[Message]) -> None:
        records: list[SourceRecord] = []
        ends: list[EndReached] = []
        failed: KafkaError | None = None
        now = self._clock()
        for message in messages:
            error = message.error()
            partition = Partition(message.topic() or "", message.partition() or 0)
            epoch = self._assignment.epochs.get(partition)
            if error is not None and (error.fatal() or error.code() == KafkaError._FATAL):
                failed = error
            elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._client_error(error, partition)
            elif epoch is None:
                continue  # revoked between fetch and hand-over; its new owner reads it
            elif error is not None:
                ends.append(EndReached(partition, epoch, message.offset() or 0))
                self._assignment.reached(partition, ends[-1].position)
            else:
                epoch = self._epoch_for(partition, epoch, message.offset() or 0, records)
                records.append(source_record(message, partition, epoch, now))
                self._assignment.delivered(partition, records[-1].offset)
        self._hand_over(records)
        for end in ends:
            self._commands.put(end)
        if failed is not None:
            self._observer.client_error("consumer", failed.name())
            self._pauses.forget()
            self._drop(self._assignment.epochs)  # what the group thinks of us, nobody can tell
            self._membership.refused(failed)

    def _hand_over(self, records: list[SourceRecord]) -> None:
        if not records:
            return
        self._in_flight.admit((Partition.of(record), record) for record in records)
        self._commands.put(Delivered(tuple(records)))  # before anyone can finish them
        self._observer.delivered(len(records))
        self._on_records(list(records))

    def _epoch_for(self, partition: Partition, epoch: int, offset: int, records: list[SourceRecord]) -> int:
        """The epoch to deliver ``offset`` in: a new one when the position was moved back, as by a truncated log."""
        if not self._assignment.goes_back(partition, offset):
            return epoch
        logger.warning("%s went back to offset %d; what is in flight of it starts again", partition, offset)
        self._hand_over(records)
        records.clear()
        ended = self._assignment.end((partition,))
        self._in_flight.forget(ended)
        (new,) = self._assignment.begin((partition,)).values()
        self._commands.put(Assigned(partition, new, None))
        self._observer.rebalanced("rewound", 1)
        self._on_revoked(ended)
        return new

    def _client_error(self, error: KafkaError, partition: Partition) -> None:
        self._observer.client_error("consumer", error.name())
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise NoSuchOffset(
                f"{partition}: the group has no offset, or one that is not in the log, and kafka.client's "
                "auto.offset.reset is error. Set the group's offset (kafka-consumer-groups --reset-offsets), or remove "
                "the setting to start at the earliest record."
            )
        logger.warning("%s: %s (%s); the client goes on trying", partition, error.str(), error.name())

    # Rebalances; called by the client inside poll, consume and close.

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._membership.entered()
        begun = self._assignment.begin(Partition(p.topic, p.partition) for p in partitions)
        for partition, epoch in begun.items():
            self._commands.put(Assigned(partition, epoch, None))
        consumer.incremental_assign(partitions)
        self._pauses.assigned(consumer, begun)  # a pause before the assignment would do nothing
        self._observer.rebalanced("assigned", len(begun))
        logger.info("assigned %s", _names(begun))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = {
            partition: epoch
            for partition, epoch in self._assignment.epochs.items()
            if any(p.topic == partition.topic and p.partition == partition.number for p in partitions)
        }
        budget = self._in_flight.budget(self._pauses.reasons)
        logger.info("revoking %s: waiting up to %.1f s for what is in flight", _names(leaving), budget)
        last = self._last_offsets(leaving, budget)
        whole = self._in_flight.forget(self._assignment.end(leaving))
        self._pauses.gone(consumer, leaving)
        self._note_left(whole=self._committer.finish(consumer, leaving, last) and whole)
        self._on_revoked(leaving)
        consumer.incremental_unassign(partitions)
        self._observer.rebalanced("revoked", len(leaving))
        logger.info("revoked %s", _names(leaving))

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._membership.left()
        lost = [Partition(p.topic, p.partition) for p in partitions]
        self._pauses.gone(consumer, lost)
        self._drop(lost)
        consumer.incremental_unassign(partitions)

    def _drop(self, lost: Iterable[Partition]) -> None:
        """These are someone else's already: commit nothing of them."""
        ended = self._assignment.end(lost)
        self._commands.put(Lost(ended))
        whole = self._committer.forget(ended)
        self._note_left(whole=self._in_flight.forget(ended) and whole)
        self._on_revoked(ended)
        self._observer.rebalanced("lost", len(ended))
        logger.warning("lost %s: the group took them away; their records in flight are read again", _names(ended))

    def _last_offsets(self, leaving: Mapping[Partition, int], budget: float) -> dict[Partition, int]:
        """Let what is in flight of these become durable within ``budget`` seconds; returns the offsets to commit."""
        deadline = self._clock() + budget
        if self._closing is not None:
            deadline = min(deadline, self._closing)
        reply: SimpleQueue[dict[Partition, int]] = SimpleQueue()
        self._commands.put(Revoke(leaving, deadline, reply))
        answer: dict[Partition, int] | None = None
        while answer is None:
            self.last_round = self._clock()
            # A rebalance is a new generation already, in which these partitions are still ours to commit.
            self._group_metadata = self._consumer.consumer_group_metadata()
            try:
                answer = reply.get(timeout=POLL_SECONDS)
            except Empty:
                if self._clock() >= deadline + REPLY_MARGIN_SECONDS:
                    logger.error("The release thread is silent; %s end with the last known offsets", _names(leaving))
                    answer = {}
        return answer

    def _note_left(self, *, whole: bool) -> None:
        # A rebalance long before is no matter of how this worker ends.
        if DRAINING in self._pauses.reasons:
            self.left_whole = self.left_whole and whole

    def _taken_drains(self) -> list[Drain]:
        drains = []
        while not self._drains.empty():
            drains.append(self._drains.get())
        return drains


def _names(partitions: Iterable[Partition]) -> str:
    return ", ".join(str(partition) for partition in sorted(partitions)) or "nothing"
