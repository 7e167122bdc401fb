"""What waits for the next transaction: outcomes, and ends of partitions. No IO; times are the caller's.

``transaction_size`` says how much of it the next one takes. Outcomes of an input topic some of whose outputs, or whose
offsets, were refused are held: they wait by themselves, and are tried in transactions of their own, so that the others
go on.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.delivery.ledger import Release
    from consumer.delivery.transaction_size import TransactionSize
    from consumer.events import Partition


BACKOFF = Backoff(first=0.1, limit=5.0, least=1.0)
"""Pauses between tries. Without jitter: only one producer tries."""

BLOCKED_FAILURES = 4
"""Consumption pauses from this many failures in a row (0.7 s): fewer are a rebalance, or a leader moving."""

FREED_RECORDS = 256
"""A try of as many outcomes of a held topic that went well frees it: they go together with the others again."""


@dataclass(slots=True, eq=False)
class Held:
    """The outcomes and ends of one input topic that wait because some of its outputs, or its offsets, were refused."""

    refused_by: str = ""
    waiting: deque[tuple[Release, float, int]] = field(default_factory=deque)
    ends: dict[Partition, tuple[int, int]] = field(default_factory=dict)
    failures: int = 0
    """Failed tries in a row."""
    not_before: float = 0.0
    """Monotonic seconds of the next try."""
    records: int = 1
    """Most outcomes of the next try: doubled after each that goes well, so that the first one that cannot is found."""
    refused_again: bool = False
    """Whether it failed since ``TransactionQueue.try_again``."""

    @property
    def blocked(self) -> bool:
        """Whether somebody has to act."""
        return self.failures >= BLOCKED_FAILURES


def bytes_of(releases: Iterable[Release]) -> int:
    """Bytes of all outputs of these outcomes."""
    return sum(output.size for release in releases for output in release.outcome.outputs)


class TransactionQueue:
    """Outcomes of a partition come in offset order, and stay until their transaction is committed.

    The outcomes of an input topic are held together or not at all, so those of a partition stay in order.
    """

    def __init__(self, size: TransactionSize, interval_seconds: float) -> None:
        """The first to come waits for others at most ``interval_seconds``."""
        self._size = size
        self._interval = interval_seconds
        # With the monotonic seconds of their release, and the bytes of their outputs.
        self._pending: deque[tuple[Release, float, int]] = deque()
        self._bytes = 0
        self._held: dict[str, Held] = {}
        self.trying: str | None = None
        """The held input topic of which the last batch is a try; None when it is none."""
        self._to_abort: Sequence[Release] = ()
        # Positions at which a partition has nothing more to read; they have no outputs.
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._ends_since = math.inf
        self._committed: dict[Partition, tuple[int, int]] = {}

    @property
    def outputs(self) -> int:
        """Outputs of the outcomes that wait."""
        waiting = (self._pending, *(held.waiting for held in self._held.values()))
        return sum(len(release.outcome.outputs) for each in waiting for release, _, _ in each)

    @property
    def blocked(self) -> dict[str, frozenset[str]]:
        """Topics that refuse outputs, each with the input topics that are held for it."""
        found: dict[str, frozenset[str]] = {}
        for topic, held in self._held.items():
            if held.blocked:
                found[held.refused_by] = found.get(held.refused_by, frozenset()) | {topic}
        return found

    @property
    def stuck(self) -> bool:
        """Whether all outcomes that wait are held, and were refused since ``try_again``."""
        return not self._pending and all(held.refused_again for held in self._held.values())

    def add(self, release: Release, now: float) -> None:
        """Add an outcome."""
        size = bytes_of((release,))
        if (held := self._held.get(release.partition.topic)) is not None:
            held.waiting.append((release, now, size))
            return
        self._pending.append((release, now, size))
        self._bytes += size

    def add_ends(self, offsets: Mapping[Partition, tuple[int, int]], now: float) -> None:
        """Add (epoch, position) of each partition, unless it was committed already."""
        for partition, end in offsets.items():
            if end <= self._committed.get(partition, (-1, -1)):
                continue
            if (held := self._held.get(partition.topic)) is not None:
                held.ends[partition] = end
            else:
                self._ends[partition] = end
                self._ends_since = min(self._ends_since, now)

    def abort_first(self, releases: Sequence[Release]) -> None:
        """A producer was replaced: these outputs are to be produced, and aborted, before all else.

        Those of an earlier replacement stay instead, where they were not all aborted.
        """
        self._to_abort = self._to_abort or releases

    def aborted(self, batch: Sequence[Release]) -> None:
        """A batch without offsets was produced and aborted."""
        self._to_abort = self._to_abort[len(batch) :]

    def due_at(self, *, linger: bool) -> float:
        """When the next transaction is due, in monotonic seconds: at once when it is full, or not to ``linger``."""
        if self._to_abort:
            return -math.inf
        return min(self._due_at(linger=linger), *(held.not_before for held in self._held.values()), math.inf)

    def _due_at(self, *, linger: bool) -> float:
        if (self._pending or self._ends) and (not linger or self._size.is_full(len(self._pending), self._bytes)):
            return -math.inf
        first = self._pending[0][1] if self._pending else math.inf
        return min(first, self._ends_since) + self._interval

    def keep(self, epochs: Mapping[Partition, int]) -> None:
        """Drop what is not of the current epoch of its partition: another worker processes it."""

        def current(waiting: deque[tuple[Release, float, int]]) -> deque[tuple[Release, float, int]]:
            return deque(each for each in waiting if epochs.get(each[0].partition) == each[0].record.epoch)

        self._pending = current(self._pending)
        self._bytes = sum(size for _, _, size in self._pending)
        for topic, held in list(self._held.items()):
            held.waiting = current(held.waiting)
            held.ends = {partition: end for partition, end in held.ends.items() if epochs.get(partition) == end[0]}
            if not held.waiting and not held.ends:
                del self._held[topic]  # what was refused went to other workers: nothing is left to try with
        self._ends = {partition: end for partition, end in self._ends.items() if epochs.get(partition) == end[0]}
        if not self._ends:
            self._ends_since = math.inf

    def hold(self, topic: str, refused_by: str, now: float) -> Held:
        """Outputs or offsets of the input ``topic`` were refused: it waits, and is tried by itself after a pause."""
        held = self._held.setdefault(topic, Held())
        held.refused_by = refused_by
        held.not_before = now + BACKOFF.pause(held.failures)
        held.failures += 1
        held.records = 1
        held.refused_again = held.blocked
        pending, self._pending = self._pending, deque()
        for each in pending:
            (held.waiting if each[0].partition.topic == topic else self._pending).append(each)
        self._bytes = sum(size for _, _, size in self._pending)
        for partition in [partition for partition in self._ends if partition.topic == topic]:
            held.ends[partition] = self._ends.pop(partition)
        if not self._ends:
            self._ends_since = math.inf
        return held

    def try_again(self) -> None:
        """Try every held topic once more, now."""
        for held in self._held.values():
            held.refused_again = False
            held.not_before = -math.inf

    def too_many(self) -> None:
        """The try that is the last batch was too large: the next one is smaller."""
        if self.trying is not None:
            held = self._held[self.trying]
            held.records = max(1, held.records // 2)

    def next_batch(self, now: float) -> tuple[list[Release], dict[Partition, tuple[int, int]]]:
        """The outcomes of the next transaction, and its offsets as (epoch, position). Both stay in the queue.

        A try of a held topic that is due, and in turn with it what is not held. Without offsets: to be aborted.
        """
        if self._to_abort:
            self.trying = None
            return list(self._to_abort[: self._size.take(bytes_of((each,)) for each in self._to_abort)]), {}
        due = [topic for topic, held in self._held.items() if now >= held.not_before]
        self.trying = None if not due or (self.trying is not None and self._pending) else due[0]
        if self.trying is not None:
            held = self._held[self.trying]
            sizes = [size for _, _, size in islice(held.waiting, held.records)]
            tried = [release for release, _, _ in islice(held.waiting, self._size.take(sizes))]
            return tried, {**held.ends, **{r.partition: (r.record.epoch, r.record.offset + 1) for r in tried}}
        taken = self._size.take(size for _, _, size in self._pending)
        batch = [release for release, _, _ in islice(self._pending, taken)]
        # An end is known once all before it is durable, so whatever is pending now lies behind it.
        return batch, {**self._ends, **{r.partition: (r.record.epoch, r.record.offset + 1) for r in batch}}

    def committed(self, batch: Sequence[Release], offsets: Mapping[Partition, tuple[int, int]], now: float) -> int:
        """The last batch, and these offsets, were committed. Returns the bytes of ``batch``."""
        if self.trying is not None:
            size = self._went_well(self.trying, len(batch), offsets, now)
        else:
            size = sum(self._pending.popleft()[2] for _ in batch)
            self._bytes -= size
        self._committed.update(offsets)
        self._ends = {p: end for p, end in self._ends.items() if end > offsets.get(p, (-1, -1))}
        self._ends_since = now if self._ends else math.inf
        return size

    def _went_well(self, topic: str, records: int, offsets: Mapping[Partition, tuple[int, int]], now: float) -> int:
        held = self._held[topic]
        size = sum(held.waiting.popleft()[2] for _ in range(records))
        held.ends = {p: end for p, end in held.ends.items() if end > offsets.get(p, (-1, -1))}
        held.failures = 0
        held.refused_again = False
        held.not_before = now
        held.records *= 2
        if not held.waiting or held.records > FREED_RECORDS:
            del self._held[topic]
            self._pending.extendleft(reversed(held.waiting))
            self._bytes += sum(size for _, _, size in held.waiting)
            self._ends |= held.ends
        return size
