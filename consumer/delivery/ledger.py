"""Which results may be published, and up to where a partition may be committed, whatever the order of completion.

"Contiguous" means in delivery order: compaction, aborted transactions and transaction markers leave gaps between the
offsets of a partition, so the offset to commit is that of the last record of the processed prefix, plus one.

Per partition the ledger keeps a linked list of the records in flight, in delivery order, and nothing else. Each entry
has ``through``, the last offset delivered before the next entry in flight: when an entry becomes durable its run joins
that of its predecessor; when it has none, everything up to ``through`` is durable. Every operation is O(1), a release
O(1) per released record, and memory is bounded by what is in flight, also while one slow record holds back a commit.
What is durable behind such a record is named in a note that goes with the commit (``done_note``): all offsets that were
passed and are not in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from consumer.delivery.done_note import Done, note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.events import Outcome, Partition, SourceRecord

Order = Literal["partition", "key", "none"]
"""``partition``: results in offset order. ``key``: the results of one key in offset order; records without a key have
no order among themselves or with others, as Kafka gives them none. ``none``: as they finish."""


class Commit(NamedTuple):
    """What may be committed of a partition. Of two in one epoch the later one says more."""

    epoch: int
    offset: int
    """The next record to read: all before it are durable."""
    note: str = ""
    """Which records behind it are durable, too (``done_note``); empty for none."""


@dataclass(slots=True)
class Release:
    """A processed record whose outputs may be produced now: from here on the publisher owns it."""

    partition: Partition
    record: SourceRecord
    outcome: Outcome
    """What is published; a publisher that replaces an output stores the changed outcome here."""
    unacknowledged: int = 0
    """Outputs that the publisher still waits for, where it counts them."""


@dataclass(slots=True, eq=False, repr=False)
class _Entry:
    through: int
    previous: _Entry | None
    next: _Entry | None = None
    queue: list[_Entry] | None = None
    """Entries in flight that must be released in this order; None where the order of release does not matter."""
    release: Release | None = None
    """Set once the record is processed."""
    released: bool = False


@dataclass(slots=True, eq=False, repr=False)
class _Assignment:
    partition: Partition
    epoch: int
    commit: int | None
    last: int | None = None
    end: int | None = None
    done: Done | None = None
    """What the note of an earlier epoch names, until it is passed."""
    changed: bool = False
    """Whether a commit would say more than the last one."""
    tail: _Entry | None = None
    entries: dict[int, _Entry] = field(default_factory=dict)
    queues: dict[bytes | None, list[_Entry]] = field(default_factory=dict)
    """Lists: nearly all hold one entry, and a deque takes 760 bytes."""


class Ledger:
    """Order of release and safe offsets of every assigned partition. One thread owns it."""

    def __init__(self, order: Order, *, notes: bool = True) -> None:
        """``notes``: whether a commit says what is durable behind its offset; in transactions nothing is."""
        self._order = order
        self._notes = notes
        self._assignments: dict[tuple[str, int], _Assignment] = {}
        self.in_flight = 0
        """Records delivered and not yet durable, over all partitions."""
        self.stale = 0
        """Completions that were ignored: of a revoked partition, an older epoch, or a record processed before."""

    @property
    def awaits_outcomes(self) -> bool:
        """Whether any record in flight is not released yet. Looks at each: for a drain, not for every round."""
        return any(not entry.released for each in self._assignments.values() for entry in each.entries.values())

    def in_flight_of(self, partition: Partition) -> int:
        """Records of ``partition`` delivered and not yet durable; 0 when it is not assigned."""
        assignment = self._assignments.get(partition)
        return len(assignment.entries) if assignment else 0

    def epoch(self, partition: Partition) -> int | None:
        """The current assignment epoch of ``partition``; None when it is not assigned."""
        assignment = self._assignments.get(partition)
        return assignment.epoch if assignment else None

    def assign(self, partition: Partition, epoch: int, position: int | None = None, done: Done | None = None) -> None:
        """Start an epoch. What an earlier epoch of the partition had in flight is forgotten (a seek is a new epoch).

        ``position`` is the first offset to be delivered, where it is known: nothing below it is ever committed.
        ``done``: what is durable behind it and is not delivered again.
        Raises ValueError when ``epoch`` is not newer than the current one.
        """
        current = self.epoch(partition)
        if current is not None and epoch <= current:
            raise ValueError(f"Epoch {epoch} of {partition} is not newer than {current}: number every assignment anew.")
        self.revoke((partition,))
        self._assignments[partition] = _Assignment(partition, epoch, position, done=done)

    def rewind(self, partition: Partition, epoch: int, offset: int) -> int:
        """Start an epoch at ``offset``, or at the first record in flight before it: returns where."""
        assignment = self._assignments.get(partition)
        position = min(offset, next(iter(assignment.entries), offset)) if assignment else offset
        self.assign(partition, epoch)
        return position

    def deliver(self, record: SourceRecord) -> None:
        """Take note of a polled record. Ignored when its epoch is not the current one.

        Raises ValueError when its offset is not above the last one delivered: going back is a new epoch.
        """
        offset = record.offset
        assignment = self._current((record.topic, record.partition), record.epoch)
        if assignment is None:
            return
        if assignment.last is not None and offset <= assignment.last:
            raise ValueError(
                f"Offset {offset} of {assignment.partition} follows {assignment.last} in epoch {record.epoch}: going "
                "back is a new epoch."
            )
        tail = assignment.tail
        entry = assignment.tail = assignment.entries[offset] = _Entry(offset, tail)
        if tail is not None:
            tail.next = entry
        if assignment.done is not None:
            assignment.done = assignment.done.behind(offset)
        assignment.last = offset
        assignment.end = None
        self.in_flight += 1
        key = record.key if self._order == "key" else None
        if key is not None or self._order == "partition":
            entry.queue = assignment.queues.setdefault(key, [])
            entry.queue.append(entry)

    def processed(self, record: SourceRecord, outcome: Outcome) -> tuple[Release, ...]:
        """Take the outcome of one record; returns what may be produced now, in the order it must be produced."""
        assignment = self._current((record.topic, record.partition), record.epoch)
        entry = assignment.entries.get(record.offset) if assignment else None
        if assignment is None or entry is None or entry.release is not None:
            self.stale += 1
            return ()
        entry.release = Release(assignment.partition, record, outcome)
        queue = entry.queue
        if queue is None:
            entry.released = True
            return (entry.release,)
        released = []
        for first in queue:
            if first.release is None:
                break
            first.released = True
            released.append(first.release)
        del queue[: len(released)]  # at once: one by one each would move all behind it
        if not queue:
            del assignment.queues[record.key if self._order == "key" else None]
        return tuple(released)

    def durable(self, release: Release) -> bool:
        """All outputs of ``release`` are acknowledged. False, and counted as stale, when its epoch has ended.

        Raises ValueError for a record that was not released: its outputs cannot be durable.
        """
        partition, epoch, offset = release.partition, release.record.epoch, release.record.offset
        assignment = self._current(partition, epoch)
        entry = assignment.entries.get(offset) if assignment else None
        if assignment is None or entry is None:
            self.stale += 1
            return False
        if not entry.released:
            raise ValueError(f"Offset {offset} of {partition} (epoch {epoch}) was not released, so it is not durable.")
        del assignment.entries[offset]
        self.in_flight -= 1
        if entry.next is not None:
            entry.next.previous = entry.previous
        else:
            assignment.tail = entry.previous
        if entry.previous is not None:
            entry.previous.next = entry.next
            entry.previous.through = entry.through
            assignment.changed = assignment.changed or self._notes
        else:
            _advance(assignment, entry.through + 1)
        if not assignment.entries and assignment.end is not None:
            _advance(assignment, assignment.end)
        return True

    def reached_end(self, partition: Partition, epoch: int, position: int) -> None:
        """The partition ends at ``position``, behind gaps and transaction markers that are no records.

        It is committed once nothing is in flight; otherwise lag would never reach zero.
        """
        assignment = self._current(partition, epoch)
        if assignment is None:
            return
        assignment.done = None  # all of it is passed, or of a log that lost its end
        if assignment.last is not None and position <= assignment.last:
            return
        assignment.end = position
        if not assignment.entries:
            _advance(assignment, position)

    def committable(self, now_ms: int = 0) -> dict[Partition, Commit]:
        """What may be committed of partitions where something became durable since the last call.

        ``now_ms``: milliseconds since 1970, for notes. Takes time in proportion to the records in flight of these
        partitions, some 0.1 us each.
        """
        found = {}
        for assignment in self._assignments.values():
            if assignment.changed:
                assignment.changed = False
                found[assignment.partition] = self._commit(assignment, now_ms)
        return found

    def revoke(self, partitions: Iterable[Partition]) -> int:
        """Forget these partitions; returns how many records in flight are abandoned. Read ``committable`` first."""
        abandoned = 0
        for partition in partitions:
            abandoned += self.in_flight_of(partition)
            self._assignments.pop(partition, None)
        self.in_flight -= abandoned
        return abandoned

    def _commit(self, assignment: _Assignment, now_ms: int) -> Commit:
        in_flight = assignment.entries
        offset = assignment.commit
        if offset is None:  # nothing of the prefix is durable yet, so the first record is the one to begin at again
            offset = next(iter(in_flight))
        if not self._notes or (not in_flight and assignment.done is None):
            return Commit(assignment.epoch, offset)
        # What was passed: delivered, or done before and behind the last that was delivered, up to the partition's end.
        end = max(offset, 0 if assignment.last is None else assignment.last + 1, assignment.end or 0)
        return Commit(assignment.epoch, offset, note(offset, in_flight, end, assignment.done, now_ms))

    def _current(self, partition: tuple[str, int], epoch: int) -> _Assignment | None:
        assignment = self._assignments.get(partition)
        return assignment if assignment is not None and assignment.epoch == epoch else None


def _advance(assignment: _Assignment, commit: int) -> None:
    if assignment.commit is None or commit > assignment.commit:
        assignment.commit = commit
        assignment.changed = True
