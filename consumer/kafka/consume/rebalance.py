"""Rebalances: what happens when partitions are assigned, revoked, lost, or when a position moves back.

``Rebalance`` has the callbacks that the poll thread gives to ``subscribe``; the client calls them inside ``poll``,
``consume`` and ``close``, on the poll thread. Each assignment of a partition is a new epoch, so a late result of an
earlier assignment never counts for the current one of the same partition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import structlog
from confluent_kafka import KafkaException, TopicPartition

from consumer.delivery import done_note
from consumer.delivery.admission import stands_still
from consumer.delivery.commands import Assigned, Command, Lost, Revoke, Rewound
from consumer.delivery.ledger import Commit
from consumer.events import Partition
from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from confluent_kafka import Consumer

    from consumer.delivery.admission import InFlight
    from consumer.delivery.done_note import Done
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.consume.assignment import Assignment, Pauses
    from consumer.kafka.consume.committer import Committer
    from consumer.kafka.consume.membership import Membership

_log = structlog.stdlib.get_logger(__name__)

_T = TypeVar("_T")

REPLY_SECONDS = 0.1
"""Longest wait for the release thread's answer before the poll thread shows the watchdog again that it lives."""

COMMITTED_SECONDS = 5.0
"""Longest wait for what is committed of partitions that are assigned, with its notes: the client then asks for itself,
and what is done behind it is done again."""

REPLY_MARGIN_SECONDS = 5.0
"""The release thread answers a revocation at its deadline; this much later it is taken to have failed."""


@dataclass(eq=False, slots=True)
class Rebalance:
    """Begins and ends epochs. A revocation waits for what is in flight and commits it before the partitions leave."""

    assignment: Assignment
    pauses: Pauses
    in_flight: InFlight
    committer: Committer
    membership: Membership
    commands: SimpleQueue[Command]
    on_revoked: Callable[[Mapping[Partition, int]], None]
    on_wait: Callable[[], None]
    """Called every ``REPLY_SECONDS`` while a revocation waits."""
    observer: KafkaObserver
    clock: Callable[[], float]
    notes: bool
    """Whether to look for notes of what is done."""
    went_back: dict[Partition, int] = field(default_factory=dict)
    """Partitions whose position moved back, and to where, until they are read again."""
    close_by: float = math.inf
    """Monotonic seconds after which no revocation waits."""
    left_whole: bool = True
    """Whether no assignment that ended left records to be repeated by their next owner. Reset when a drain begins: an
    earlier rebalance does not count in the result of the drain."""
    commits_last: bool = False
    """Whether the last commit of partitions that leave is under way. Read it after ``epochs``, where they are gone."""

    def assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """``on_assign``: begin an epoch of each, behind what is committed, without what is noted as done."""
        self.membership.entered()
        begun = self.assignment.begin(Partition(p.topic, p.partition) for p in partitions)
        noted = self._noted(consumer, partitions) if self.notes and partitions else {}
        for partition, epoch in begun.items():
            offset, done = noted.get(partition, (None, None))
            if offset is not None and done is not None:
                self.assignment.pass_over(partition, offset, done)
            self.commands.put(Assigned(partition, epoch, offset, done))
        # With the offset that the note is of, and no other: the client would ask for it a second time.
        positions = {
            p: TopicPartition(*p, offset, leader_epoch=-1 if done.leader_epoch is None else done.leader_epoch)
            for p, (offset, done) in noted.items()
        }
        consumer.incremental_assign([positions.get(Partition(p.topic, p.partition), p) for p in partitions])
        self.pauses.assign(consumer, begun)  # a pause before the assignment would do nothing
        self.observer.rebalanced("assigned", len(begun))
        _log.info("assigned", assignments=_names(begun))

    def revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """``on_revoke``: wait for what is in flight, commit what is durable, then give the partitions up."""
        named = {Partition(p.topic, p.partition) for p in partitions}
        leaving = {partition: epoch for partition, epoch in self.assignment.epochs.items() if partition in named}
        reasons = self.pauses.reasons
        input_of = self.pauses.input_of
        awaited = {partition for partition in leaving if not stands_still(input_of[partition.topic], reasons)}
        budget = self.in_flight.revoke_seconds() if awaited else 0.0
        _log.info("revoking: waiting for what is in flight", assignments=_names(leaving), seconds=round(budget, 1))
        last = self._last_offsets(leaving, awaited, min(self.clock() + budget, self.close_by))
        self.commits_last = True
        whole = self.in_flight.forget(self.assignment.end(leaving))
        self.pauses.unassign(consumer, leaving)
        self.left_whole = self.committer.commit_last(consumer, leaving, last) and whole and self.left_whole
        self.commits_last = False
        self.on_revoked(leaving)
        consumer.incremental_unassign(partitions)
        self.observer.rebalanced("revoked", len(leaving))
        _log.info("revoked", assignments=_names(leaving))

    def lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """``on_lost``: the group has assigned these to another member already."""
        self.membership.joined = False
        lost = [Partition(p.topic, p.partition) for p in partitions]
        self.pauses.unassign(consumer, lost)
        self.drop(lost)
        consumer.incremental_unassign(partitions)

    def drop(self, lost: Iterable[Partition]) -> None:
        """End the epochs of partitions that belong to another member: commit nothing of them."""
        ended = self.assignment.end(lost)
        self.commands.put(Lost(ended))
        whole = self.committer.forget(ended)
        self.left_whole = self.in_flight.forget(ended) and whole and self.left_whole
        self.on_revoked(ended)
        self.observer.rebalanced("lost", len(ended))
        _log.warning(
            "lost partitions: the group took them away; their records in flight are read again",
            assignments=_names(ended),
        )

    def rewound(self, partition: Partition, offset: int) -> None:
        """The position moved back to ``offset``, or the log has others from there on: end the epoch.

        ``read_again`` begins one.
        """
        ended = self.assignment.end((partition,))
        self.in_flight.forget(ended)
        self.went_back[partition] = offset
        self.observer.rebalanced("rewound", 1)
        self.on_revoked(ended)

    def read_again(self, consumer: Consumer) -> None:
        """Begin an epoch of each partition that ``went_back``, at its first record that was in flight, or there.

        That is committed at once, without a note: what was committed before is of what the log has lost. Raises
        ClientFailed where the release thread is silent.
        """
        while self.went_back:
            partition, offset = self.went_back.popitem()
            reply: SimpleQueue[int] = SimpleQueue()
            (epoch,) = self.assignment.begin((partition,)).values()
            self.commands.put(Rewound(partition, epoch, offset, reply))
            position = self._answer(reply, self.clock())
            if position is None:
                raise ClientFailed(
                    f"The position of {partition} went back to {offset}, and the release thread does not say what is "
                    "in flight before that. Start the worker again; what is not committed is read again."
                )
            _log.warning(
                "a position went back; what is in flight of its partition starts again",
                topic=partition.topic,
                partition=partition.number,
                offset=offset,
                position=position,
            )
            consumer.seek(TopicPartition(*partition, position))
            if self.notes:
                self.committer.request({partition: Commit(epoch, position)})

    def _noted(self, consumer: Consumer, partitions: list[TopicPartition]) -> dict[Partition, tuple[int, Done]]:
        """The committed offsets with a note of what is done behind them, and what that names."""
        try:
            committed = consumer.committed(partitions, timeout=COMMITTED_SECONDS)
        except KafkaException as error:
            _log.info("what is done behind the committed offsets is not known: it is done again", reason=str(error))
            return {}
        finally:
            self.on_wait()
        noted = {}
        for each in committed:
            done = done_note.read(each.offset, each.metadata or "", each.leader_epoch) if each.error is None else None
            if done is not None:
                noted[Partition(each.topic, each.partition)] = each.offset, done
        if noted:
            _log.info(
                "records that are done behind the committed offsets are passed over",
                assignments={str(partition): done.count for partition, (_, done) in noted.items()},
            )
        return noted

    def _last_offsets(
        self, leaving: Mapping[Partition, int], awaited: Collection[Partition], deadline: float
    ) -> dict[Partition, Commit]:
        """Let what is in flight of ``awaited`` become durable until ``deadline``; what to commit of all."""
        reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
        self.commands.put(Revoke(leaving, awaited, deadline, reply))
        last = self._answer(reply, deadline)
        if last is None:
            _log.error(
                "the release thread is silent; partitions end with the last known offsets", assignments=_names(leaving)
            )
        return last or {}

    def _answer(self, reply: SimpleQueue[_T], deadline: float) -> _T | None:
        """What the release thread answers; None where it is silent until well after ``deadline``."""
        while True:
            self.on_wait()
            try:
                return reply.get(timeout=REPLY_SECONDS)
            except Empty:
                if self.clock() >= deadline + REPLY_MARGIN_SECONDS:
                    return None


def _names(epochs: Mapping[Partition, int]) -> list[str]:
    """Partitions with their epochs, as a field of a log line: ``in-0 (epoch 3)``."""
    return [f"{partition} (epoch {epoch})" for partition, epoch in sorted(epochs.items())]
