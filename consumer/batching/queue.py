"""Windows that wait for a batch, kept in one heap per padded length."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from consumer.batching.shapes import PADDED_LENGTHS, padded_length


@dataclass(frozen=True, slots=True)
class Pending:
    """A window that waits. ``deadline`` and ``enqueued`` are seconds of the injected clock, ``length`` is in tokens."""

    id: int
    length: int
    deadline: float
    level: int
    enqueued: float

    @property
    def urgency(self) -> tuple[float, int, int]:
        """Sort key: deadline first; then the deeper level, so that started events finish first; then arrival."""
        return (self.deadline, -self.level, self.id)


class LengthQueue:
    """Pending windows by padded length, the most urgent of each length first.

    A batch pays for the longest of its rows, rounded up, so windows of one padded length cost each other nothing. With
    28 lengths, finding the most urgent window and its cheapest company is 28 looks, however long the queue is.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[tuple[tuple[float, int, int], Pending]]] = {n: [] for n in PADDED_LENGTHS}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pending: Pending) -> None:
        """Insert one window. Raises ValueError for a length outside 1..512 tokens."""
        heapq.heappush(self._heaps[padded_length(pending.length)], (pending.urgency, pending))
        self._size += 1

    def count(self, length: int) -> int:
        """How many windows wait at this padded length."""
        return len(self._heaps[length])

    def most_urgent(self) -> Pending | None:
        """The window that must be in the next batch, or None when nothing waits."""
        heads = [heap[0] for heap in self._heaps.values() if heap]
        return min(heads)[1] if heads else None

    def take(self, length: int, rows: int) -> list[Pending]:
        """Remove up to ``rows`` windows of this padded length, the most urgent first."""
        heap = self._heaps[length]
        taken = [heapq.heappop(heap)[1] for _ in range(min(rows, len(heap)))]
        self._size -= len(taken)
        return taken
