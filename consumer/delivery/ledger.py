"""Which results may be published, and up to where a partition may be committed, whatever the order of completion.

"Contiguous" means in delivery order: compaction, aborted transactions and transaction markers leave gaps between the
offsets of a partition, so the offset to commit is that of the last record of the processed prefix, plus one.

Per partition the ledger keeps a linked list of the records in flight, in delivery order, and nothing else. Each entry
knows ``through``, the last offset delivered before the next entry in flight: when an entry becomes durable its run
joins that of its predecessor; when it has none, everything up to ``through`` is durable. Every operation is O(1), a
release O(1) per released record, and memory is bounded by what is in flight, also while one slow record holds back a
commit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.events import Partition

Order = Literal["partition", "key", "none"]
"""``partition``: results in offset order. ``key``: the results of one key in offset order; records without a key have
no order among themselves or with others, as Kafka gives them none. ``none``: as they finish."""

OutcomeT = TypeVar("OutcomeT")


@dataclass(frozen=True, slots=True)
class Release(Generic[OutcomeT]):
    """A processed record whose outputs may be produced now."""

    partition: Partition
    epoch: int
    offset: int
    outcome: OutcomeT


class _Entry(Generic[OutcomeT]):
    __slots__ = ("key", "next", "offset", "outcome", "previous", "processed", "released", "through")

    def __init__(self, offset: int, key: bytes | None, previous: _Entry[OutcomeT] | None) -> None:
        self.offset = offset
        self.key = key
        self.through = offset
        self.previous = previous
        self.next: _Entry[OutcomeT] | None = None
        self.outcome: list[OutcomeT] = []  # one element between finish and release: the result is not held any longer
        self.processed = False
        self.released = False


class _Assignment(Generic[OutcomeT]):
    __slots__ = ("commit", "end", "entries", "epoch", "lanes", "last", "tail")

    def __init__(self, epoch: int, position: int | None) -> None:
        self.epoch = epoch
        self.commit = position
        self.last: int | None = None
        self.end: int | None = None
        self.tail: _Entry[OutcomeT] | None = None
        self.entries: dict[int, _Entry[OutcomeT]] = {}
        self.lanes: dict[bytes | None, deque[_Entry[OutcomeT]]] = {}


class Ledger(Generic[OutcomeT]):
    """Order of release and safe offsets of every assigned partition. One thread owns it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._assignments: dict[Partition, _Assignment[OutcomeT]] = {}
        self._moved: set[Partition] = set()
        self._in_flight = 0
        self.stale = 0
        """Completions that were ignored: of a revoked partition, an older epoch, or a record processed before."""

    @property
    def in_flight(self) -> int:
        """Records delivered and not yet durable, over all partitions."""
        return self._in_flight

    def in_flight_of(self, partition: Partition) -> int:
        """Records of ``partition`` delivered and not yet durable; 0 when it is not assigned."""
        assignment = self._assignments.get(partition)
        return len(assignment.entries) if assignment else 0

    def epoch(self, partition: Partition) -> int | None:
        """The current assignment epoch of ``partition``; None when it is not assigned."""
        assignment = self._assignments.get(partition)
        return assignment.epoch if assignment else None

    def assign(self, partition: Partition, epoch: int, position: int | None = None) -> None:
        """Start an epoch. What an earlier epoch of the partition had in flight is forgotten (a seek is a new epoch).

        ``position`` is the first offset to be delivered, where it is known: nothing at or below it is ever committed.
        Raises ValueError when ``epoch`` is not newer than the current one.
        """
        current = self.epoch(partition)
        if current is not None and epoch <= current:
            raise ValueError(f"Epoch {epoch} of {partition} is not newer than {current}: number every assignment anew.")
        self.revoke((partition,))
        self._assignments[partition] = _Assignment(epoch, position)

    def deliver(self, partition: Partition, epoch: int, offset: int, key: bytes | None) -> bool:
        """Take note of a polled record. False, and ignored, when ``epoch`` is not the current one.

        Raises ValueError when ``offset`` is not above the last one delivered: going back is a new epoch.
        """
        assignment = self._current(partition, epoch)
        if assignment is None:
            return False
        if assignment.last is not None and offset <= assignment.last:
            raise ValueError(
                f"Offset {offset} of {partition} follows {assignment.last} in epoch {epoch}: going back is a new epoch."
            )
        entry: _Entry[OutcomeT] = _Entry(offset, key, assignment.tail)
        if assignment.tail is not None:
            assignment.tail.next = entry
        assignment.tail = entry
        assignment.last = offset
        assignment.end = None
        assignment.entries[offset] = entry
        self._in_flight += 1
        if self._waits(entry):
            assignment.lanes.setdefault(self._lane(entry), deque()).append(entry)
        return True

    def processed(
        self, partition: Partition, epoch: int, offset: int, outcome: OutcomeT
    ) -> tuple[Release[OutcomeT], ...]:
        """Record the outcome of one record; returns what may be produced now, in the order it must be produced."""
        assignment = self._current(partition, epoch)
        entry = assignment.entries.get(offset) if assignment else None
        if assignment is None or entry is None or entry.processed:
            self.stale += 1
            return ()
        entry.processed = True
        entry.outcome.append(outcome)
        if not self._waits(entry):
            return (_release(partition, epoch, entry),)
        lane = assignment.lanes[self._lane(entry)]
        released = []
        while lane and lane[0].processed:
            released.append(_release(partition, epoch, lane.popleft()))
        if not lane:
            del assignment.lanes[self._lane(entry)]
        return tuple(released)

    def durable(self, partition: Partition, epoch: int, offset: int) -> None:
        """All outputs of a released record are acknowledged. Ignored and counted when the epoch is gone.

        Raises ValueError for a record that was not released: its outputs cannot be durable.
        """
        assignment = self._current(partition, epoch)
        entry = assignment.entries.get(offset) if assignment else None
        if assignment is None or entry is None:
            self.stale += 1
            return
        if not entry.released:
            raise ValueError(f"Offset {offset} of {partition} (epoch {epoch}) was not released, so it is not durable.")
        del assignment.entries[offset]
        self._in_flight -= 1
        if entry.next is not None:
            entry.next.previous = entry.previous
        else:
            assignment.tail = entry.previous
        if entry.previous is not None:
            entry.previous.next = entry.next
            entry.previous.through = entry.through
        else:
            self._advance(partition, assignment, entry.through + 1)
        if not assignment.entries and assignment.end is not None:
            self._advance(partition, assignment, assignment.end)

    def reached_end(self, partition: Partition, epoch: int, position: int) -> None:
        """The partition's end lies at ``position``: behind gaps and markers that no record will ever account for.

        Committed once nothing is in flight; without it lag would stay above zero for ever.
        """
        assignment = self._current(partition, epoch)
        if assignment is None or (assignment.last is not None and position <= assignment.last):
            return
        assignment.end = position
        if not assignment.entries:
            self._advance(partition, assignment, position)

    def committable(self) -> dict[Partition, int]:
        """Offsets to commit that moved since the last call: next record to read, as Kafka counts."""
        moved = {}
        for partition in self._moved:
            commit = self._assignments[partition].commit
            if commit is not None:
                moved[partition] = commit
        self._moved.clear()
        return moved

    def revoke(self, partitions: Iterable[Partition]) -> int:
        """Forget these partitions; returns how many records in flight are abandoned. Read ``committable`` first."""
        abandoned = 0
        for partition in partitions:
            assignment = self._assignments.pop(partition, None)
            self._moved.discard(partition)
            if assignment is not None:
                abandoned += len(assignment.entries)
        self._in_flight -= abandoned
        return abandoned

    def _current(self, partition: Partition, epoch: int) -> _Assignment[OutcomeT] | None:
        assignment = self._assignments.get(partition)
        return assignment if assignment is not None and assignment.epoch == epoch else None

    def _waits(self, entry: _Entry[OutcomeT]) -> bool:
        return self._order == "partition" or (self._order == "key" and entry.key is not None)

    def _lane(self, entry: _Entry[OutcomeT]) -> bytes | None:
        return entry.key if self._order == "key" else None

    def _advance(self, partition: Partition, assignment: _Assignment[OutcomeT], commit: int) -> None:
        if assignment.commit is None or commit > assignment.commit:
            assignment.commit = commit
            self._moved.add(partition)


def _release(partition: Partition, epoch: int, entry: _Entry[OutcomeT]) -> Release[OutcomeT]:
    entry.released = True
    return Release(partition, epoch, entry.offset, entry.outcome.pop())
