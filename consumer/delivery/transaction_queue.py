"""What waits for the next transaction: outcomes, and ends of partitions. No IO; times are the caller's.

``transaction_size`` says how much of it the next one takes.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.delivery.ledger import Release
    from consumer.delivery.transaction_size import TransactionSize
    from consumer.events import Partition


def bytes_of(releases: Iterable[Release]) -> int:
    """Bytes of all outputs of these outcomes."""
    return sum(output.size for release in releases for output in release.outcome.outputs)


class TransactionQueue:
    """Outcomes of a partition come in offset order, and stay until their transaction is committed."""

    def __init__(self, size: TransactionSize, interval_seconds: float) -> None:
        """The first to come waits for others at most ``interval_seconds``."""
        self._size = size
        self._interval = interval_seconds
        # With the monotonic seconds of their release, and the bytes of their outputs.
        self._pending: deque[tuple[Release, float, int]] = deque()
        self._bytes = 0
        # Positions at which a partition has nothing more to read; they have no outputs.
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._ends_since = math.inf
        self._committed: dict[Partition, tuple[int, int]] = {}

    @property
    def outputs(self) -> int:
        """Outputs of the outcomes that wait."""
        return sum(len(release.outcome.outputs) for release, _, _ in self._pending)

    def add(self, release: Release, now: float) -> None:
        """Add an outcome."""
        size = bytes_of((release,))
        self._pending.append((release, now, size))
        self._bytes += size

    def add_ends(self, offsets: Mapping[Partition, tuple[int, int]], now: float) -> None:
        """Add (epoch, position) of each partition, unless it was committed already."""
        for partition, end in offsets.items():
            if end > self._committed.get(partition, (-1, -1)):
                self._ends[partition] = end
                self._ends_since = min(self._ends_since, now)

    def due_at(self, *, linger: bool) -> float:
        """When the next transaction is due, in monotonic seconds: at once when it is full, or not to ``linger``."""
        if (self._pending or self._ends) and (not linger or self._size.is_full(len(self._pending), self._bytes)):
            return -math.inf
        first = self._pending[0][1] if self._pending else math.inf
        return min(first, self._ends_since) + self._interval

    def keep(self, epochs: Mapping[Partition, int]) -> None:
        """Drop what is not of the current epoch of its partition: another worker processes it."""
        self._pending = deque(each for each in self._pending if epochs.get(each[0].partition) == each[0].record.epoch)
        self._bytes = sum(size for _, _, size in self._pending)
        self._ends = {partition: end for partition, end in self._ends.items() if epochs.get(partition) == end[0]}
        if not self._ends:
            self._ends_since = math.inf

    def next_batch(self) -> tuple[list[Release], dict[Partition, tuple[int, int]]]:
        """The outcomes of the next transaction, and its offsets as (epoch, position). Both stay in the queue."""
        taken = self._size.take(size for _, _, size in self._pending)
        batch = [release for release, _, _ in islice(self._pending, taken)]
        # An end is known once all before it is durable, so whatever is pending now lies behind it.
        return batch, {**self._ends, **{r.partition: (r.record.epoch, r.record.offset + 1) for r in batch}}

    def committed(self, batch: Sequence[Release], offsets: Mapping[Partition, tuple[int, int]], now: float) -> int:
        """The first outcomes, which are ``batch``, and these offsets were committed. Returns the bytes of ``batch``."""
        size = sum(self._pending.popleft()[2] for _ in batch)
        self._bytes -= size
        self._committed.update(offsets)
        self._ends = {p: end for p, end in self._ends.items() if end > offsets.get(p, (-1, -1))}
        self._ends_since = now if self._ends else math.inf
        return size
