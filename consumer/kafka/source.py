"""The poll thread: sole owner of the consumer.

It never waits for a model call. Records are taken only as far as the in-flight bounds allow; when they are reached the
thread first stalls, at most a second, and only then pauses partitions, because a pause throws the prefetch away. While
anything is paused it keeps polling, so that the group keeps its member.
"""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.delivery.partition import Partition
from consumer.kafka.assignment import Assignment, source_record
from consumer.kafka.commands import Assigned, Command, Delivered, Drain, EndReached, Lost, Revoke
from consumer.kafka.committer import Committer
from consumer.kafka.librdkafka_log import error_callback, librdkafka_logger
from consumer.kafka.membership import accepted
from consumer.kafka.pauses import Pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka import Message

    from consumer.delivery.admission import Admission
    from consumer.events import SourceRecord
    from consumer.kafka.observer import EdgeObserver

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Longest wait in one poll: bounds how long a commit or a pause asked for by another thread waits."""

HANDOFF_RECORDS = 256
"""Records handed over at once."""

REPLY_MARGIN_SECONDS = 2.0
"""The release thread answers a revocation at its deadline; this much later it is taken for dead."""

JOIN_SECONDS = 60.0
"""A broker that does not know KIP-848 gives no assignment and no error. A join takes about 3 s."""

BACKPRESSURE = "backpressure"
DRAINING = "draining"


class Source:
    """Reads ``topics`` as a member of the group.

    ``on_records`` gets lists of records and must be quick and thread-safe; ``on_revoked`` gets the epochs that ended,
    whose unfinished records are to be dropped. Whatever ends the thread early goes to ``on_fatal``.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topics: Sequence[str],
        admission: Admission,
        commands: SimpleQueue[Command],
        on_records: Callable[[list[SourceRecord]], None],
        on_revoked: Callable[[Mapping[Partition, int]], None],
        observer: EdgeObserver,
        on_fatal: Callable[[BaseException], None],
        revoke_seconds: float,
        join_seconds: float = JOIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = list(topics)
        self._admission = admission
        self._commands = commands
        self._on_records = on_records
        self._on_revoked = on_revoked
        self._observer = observer
        self._on_fatal = on_fatal
        self._revoke_seconds = revoke_seconds
        self._join_seconds = join_seconds
        self._join_by = clock() + join_seconds if settings.get("group.protocol") == "consumer" else None
        self._clock = clock
        self._changed = threading.Condition()  # guards the admission counters, and says that one of these changed:
        self._drains: SimpleQueue[Drain] = SimpleQueue()
        self._closing: float | None = None
        self._assignment = Assignment()
        self._committer = Committer(observer, clock)
        self.joined = False
        """Whether the group has accepted this member; its assignment may be empty."""
        self.left_whole = True
        """Whether no assignment that ended since a drain began left records to be repeated by their next owner."""
        self.turned_at = clock()
        """Monotonic seconds at which the loop last came round."""
        self._consumer = Consumer(
            {
                **settings,
                "on_commit": self._committer.answered,
                "error_cb": error_callback("consumer", observer, on_fatal),
            },
            logger=librdkafka_logger("consumer"),
        )
        self._pauses = Pauses(self._consumer, observer)
        self.thread = threading.Thread(target=self._run, name="rexstream-poll", daemon=True)

    # What other threads may call.

    @property
    def epochs(self) -> Mapping[Partition, int]:
        """Partitions assigned now, with their epochs."""
        return self._assignment.epochs

    @property
    def paused(self) -> tuple[str, ...]:
        """Reasons for which consumption is paused."""
        return self._pauses.reasons

    @property
    def in_flight(self) -> tuple[int, int]:
        """Records and bytes delivered and not yet durable."""
        with self._changed:
            return self._admission.events, self._admission.bytes

    def pause(self, reason: str) -> None:
        """Stop consuming until ``resume(reason)``; polling goes on."""
        self._pauses.want(reason)
        self._wake()

    def resume(self, reason: str) -> None:
        """Withdraw ``reason``; consumption goes on when it was the last."""
        self._pauses.withdraw(reason)
        self._wake()

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        """Commit (epoch, offset) of each partition as long as its epoch is the current one."""
        self._committer.ask(offsets)

    def finished(self, records: list[tuple[Partition, int, int]]) -> None:
        """These records (partition, epoch, bytes) are durable and make room for others."""
        with self._changed:
            for partition, epoch, size in records:
                self._admission.finished(partition, epoch, size)
            self._changed.notify()

    def drain(self, drain: Drain) -> None:
        """Take no more records; ``drain`` is answered by the release thread when nothing is in flight."""
        self._pauses.want(DRAINING)
        self._drains.put(drain)
        self._wake()

    def close(self, deadline: float) -> None:
        """Commit what is committable, leave the group and end the thread; revocations may take until ``deadline``."""
        self._closing = deadline
        self._wake()

    # The poll thread.

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            while self._closing is None:
                self._turn()
        except BaseException as error:  # whatever ends this thread must end the worker
            self._closing = self._clock()
            self._on_fatal(error)
        try:
            self._consumer.close()
        except BaseException as error:
            self._on_fatal(error)

    def _turn(self) -> None:
        self.turned_at = now = self._clock()
        with self._changed:
            verdict, room = self._admission.verdict(now), self._admission.room()
        if verdict == "pause":
            self._pauses.want(BACKPRESSURE)
        elif verdict == "resume":
            self._pauses.withdraw(BACKPRESSURE)
        drains = self._taken_drains()  # before the pauses are applied: no record may follow a drain
        self._pauses.apply(self._assignment.epochs)
        for drain in drains:
            self._commands.put(drain)
        self._committer.send(self._consumer, self._assignment.epochs)
        if verdict == "stall":
            self._stall()
            return
        first = self._consumer.poll(POLL_SECONDS)
        if first is not None:
            more = min(room, HANDOFF_RECORDS) - 1
            self._receive([first, *(self._consumer.consume(more, 0) if more else ())])
        elif not self.joined:
            self._await_membership(now)

    def _stall(self) -> None:
        started = self._clock()
        with self._changed:
            self._changed.wait(POLL_SECONDS)
        self._observer.stalled(self._clock() - started)

    def _receive(self, messages: Sequence[Message]) -> None:
        records: list[SourceRecord] = []
        ends: list[EndReached] = []
        now = self._clock()
        for message in messages:
            error = message.error()
            partition = Partition(message.topic() or "", message.partition() or 0)
            epoch = self._assignment.epochs.get(partition)
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._client_error(error, partition)
            elif epoch is None:
                continue  # revoked between fetch and hand-over; its new owner reads it
            elif error is not None:
                ends.append(EndReached(partition, epoch, message.offset() or 0))
            else:
                epoch = self._epoch_for(partition, epoch, message.offset() or 0, records)
                records.append(source_record(message, partition, epoch, now))
                self._assignment.delivered(partition, records[-1].offset)
        self._hand_over(records)
        for end in ends:
            self._commands.put(end)

    def _hand_over(self, records: list[SourceRecord]) -> None:
        if not records:
            return
        with self._changed:
            for record in records:
                self._admission.admit(Partition.of(record), record.epoch, record.size)
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
        self._forget(ended)
        (new,) = self._assignment.begin((partition,)).values()
        self._commands.put(Assigned(partition, new, None))
        self._observer.rebalanced("rewound", 1)
        self._on_revoked(ended)
        return new

    def _client_error(self, error: KafkaError, partition: Partition) -> None:
        self._observer.client_error("consumer", error.name())
        if error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise KafkaException(error)
        logger.warning("%s: %s (%s); the client goes on trying", partition, error.str(), error.name())

    def _await_membership(self, now: float) -> None:
        member = accepted(self._consumer.consumer_group_metadata())
        self.joined = member is True
        if member is not False or self._join_by is None or now < self._join_by:
            return
        self._join_by = now + self._join_seconds
        try:
            self._consumer.list_topics(timeout=2.0)
        except KafkaException:
            return  # an unreachable broker is waited for
        raise RuntimeError(
            "The brokers answer but the group does not: they seem not to support group.protocol: consumer (KIP-848, "
            "Kafka 4.0 or later). Leave group.protocol out of kafka.client."
        )

    # Rebalances; called by the client inside poll, consume and close.

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.joined = True
        begun = self._assignment.begin(Partition(p.topic, p.partition) for p in partitions)
        for partition, epoch in begun.items():
            self._commands.put(Assigned(partition, epoch, None))
        consumer.incremental_assign(partitions)
        self._pauses.assigned(begun)  # a pause before the assignment would do nothing
        self._observer.rebalanced("assigned", len(begun))
        logger.info("assigned %s", _names(begun))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = {
            partition: epoch
            for partition, epoch in self._assignment.epochs.items()
            if any(p.topic == partition.topic and p.partition == partition.number for p in partitions)
        }
        logger.info("revoking %s: waiting up to %.1f s for what is in flight", _names(leaving), self._revoke_seconds)
        last = self._last_offsets(leaving)
        whole = self._forget(self._assignment.end(leaving))
        self._pauses.gone(leaving)
        self._note_left(whole=self._committer.finish(consumer, leaving, last) and whole)
        self._on_revoked(leaving)
        consumer.incremental_unassign(partitions)
        self._observer.rebalanced("revoked", len(leaving))
        logger.info("revoked %s", _names(leaving))

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.joined = False
        ended = self._assignment.end(Partition(p.topic, p.partition) for p in partitions)
        self._commands.put(Lost(ended))
        whole = self._committer.forget(ended)
        self._note_left(whole=self._forget(ended) and whole)
        self._pauses.gone(ended)
        self._on_revoked(ended)
        consumer.incremental_unassign(partitions)
        self._observer.rebalanced("lost", len(ended))
        logger.warning("lost %s: the group took them away; their records in flight are read again", _names(ended))

    def _last_offsets(self, leaving: Mapping[Partition, int]) -> dict[Partition, int]:
        """Let what is in flight of these partitions become durable within the budget; returns the offsets to commit."""
        deadline = self._clock() + self._revoke_seconds
        if self._closing is not None:
            deadline = min(deadline, self._closing)
        reply: SimpleQueue[dict[Partition, int]] = SimpleQueue()
        self._commands.put(Revoke(leaving, deadline, reply))
        answer: dict[Partition, int] | None = None
        while answer is None:
            self.turned_at = self._clock()
            try:
                answer = reply.get(timeout=POLL_SECONDS)
            except Empty:
                if self._clock() >= deadline + REPLY_MARGIN_SECONDS:
                    logger.error("The release thread is silent; %s end with the last known offsets", _names(leaving))
                    answer = {}
        return answer

    def _forget(self, ended: Mapping[Partition, int]) -> bool:
        """Whether nothing of these was in flight."""
        with self._changed:
            before = self._admission.events
            for partition, epoch in ended.items():
                self._admission.forget(partition, epoch)
            return self._admission.events == before

    def _note_left(self, *, whole: bool) -> None:
        # A rebalance long before is no matter of how this worker ends.
        if DRAINING in self._pauses.reasons:
            self.left_whole = self.left_whole and whole

    def _taken_drains(self) -> list[Drain]:
        drains = []
        while not self._drains.empty():
            drains.append(self._drains.get())
        return drains

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()


def _names(partitions: Iterable[Partition]) -> str:
    return ", ".join(str(partition) for partition in sorted(partitions)) or "nothing"
