"""Which windows share a call to the model server, when it leaves, and how long it may take.

Pure; clocks are injected. The dispatcher owns one ``LengthQueue`` and one ``LengthCut`` and calls ``LengthCut.decide``
whenever something happened; ``padded_length`` is also what the exported graph is warmed up with.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Literal


def event_deadline(timestamp_ms: int | None, *, fetched_wall: float, fetched_at: float, objective: float) -> float:
    """Monotonic time (seconds) by which the event should be done; it orders the work.

    Its broker timestamp plus the objective. A record that was already older than the objective when it was fetched
    (restart, replay), or that claims to come from the future, counts from its fetch: by their own timestamps all
    records of a backlog would be overdue, and the deadline could not order them.
    """
    age = fetched_wall - timestamp_ms / 1000 if timestamp_ms is not None else 0.0
    return fetched_at - (age if 0 <= age <= objective else 0.0) + objective


def padded_length(length: int) -> int:
    """Round a window's length in tokens up: to a multiple of 8 up to 128, of 32 above.

    Few enough shapes to be warmed up, close enough together to waste little. Raises ValueError for a length outside
    1..512.
    """
    if not 1 <= length <= 512:
        raise ValueError(f"window length {length} is outside 1..512 tokens")
    step = 8 if length <= 128 else 32
    return -(-length // step) * step


PADDED_LENGTHS = tuple(sorted({padded_length(n) for n in range(1, 513)}))
"""All 28 lengths that a batch can have."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A window that waits. ``deadline`` and ``enqueued`` are seconds of the injected clock, ``length`` is in tokens."""

    id: int
    length: int
    deadline: float
    level: int
    enqueued: float


class LengthQueue:
    """Pending windows by padded length, the most urgent of each length first.

    A batch pays for the longest of its rows, rounded up, so windows of one padded length cost each other nothing.
    Finding the most urgent window and the windows to send with it looks at each of the 28 lengths once, however long
    the queue is.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[tuple[tuple[float, int, int], Pending]]] = {n: [] for n in PADDED_LENGTHS}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pending: Pending) -> None:
        """Insert one window. Raises ValueError for a length outside 1..512 tokens."""
        # Deadline first; then the deeper level, so that started events finish first; then arrival.
        urgency = (pending.deadline, -pending.level, pending.id)
        heapq.heappush(self._heaps[padded_length(pending.length)], (urgency, pending))
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


ReleaseReason = Literal["idle", "full", "linger", "retry"]
"""Why a batch leaves. ``retry`` is the dispatcher's: windows of a call that failed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows to send together, padded to ``padded_length`` tokens."""

    windows: tuple[Pending, ...]
    padded_length: int
    reason: ReleaseReason


@dataclass(frozen=True, slots=True)
class Decision:
    """Batches to send now, and the clock time at which to ask again when nothing else happens (None: never)."""

    batches: tuple[Batch, ...]
    wake_at: float | None


class LengthCut:
    """Batches of similar length under a token budget. Takes windows out of the queue and never drops one.

    An idle server gets whatever waits at once. A busy one, below its limit of calls in flight, gets a batch only when
    the budget is full or the most urgent window has lingered: waiting then costs nothing, since the server is busy.
    """

    LINGER_SECONDS = 0.02
    # A batch may hold up to this share of padding. Above it a second, tighter call costs less than the padding.
    MAX_PADDING = 0.25

    def __init__(self, max_tokens: int, max_in_flight: int) -> None:
        """``max_tokens`` bounds rows x padded length of one call, ``max_in_flight`` the calls; both may be changed."""
        self.max_tokens = max_tokens
        self.max_in_flight = max_in_flight

    def decide(self, now: float, queue: LengthQueue, in_flight: int) -> Decision:
        """Choose what to send at ``now`` (seconds of the injected clock) beside ``in_flight`` calls."""
        batches: list[Batch] = []
        while in_flight < self.max_in_flight and (urgent := queue.most_urgent()) is not None:
            low, high, rows = self._span(queue, urgent)
            reason: ReleaseReason = "idle"
            if in_flight:
                due = urgent.enqueued + self.LINGER_SECONDS
                if (rows + 1) * high > self.max_tokens:
                    reason = "full"
                elif now >= due:
                    reason = "linger"
                else:
                    return Decision(tuple(batches), due)
            batches.append(Batch(self._cut(queue, urgent, low, high, rows), high, reason))
            in_flight += 1
        return Decision(tuple(batches), None)

    def _span(self, queue: LengthQueue, urgent: Pending) -> tuple[int, int, int]:
        """Padded lengths (lowest, highest) around the most urgent window, and the rows that fit in the budget."""
        at = PADDED_LENGTHS.index(padded_length(urgent.length))
        low = high = at
        rows = min(queue.count(PADDED_LENGTHS[at]), max(1, self.max_tokens // PADDED_LENGTHS[at]))
        useful = rows * PADDED_LENGTHS[at]
        while True:
            best: tuple[float, int, int, int, int] | None = None
            for new_low, new_high in ((low - 1, high), (low, high + 1)):
                if new_low < 0 or new_high >= len(PADDED_LENGTHS):
                    continue
                added = PADDED_LENGTHS[new_low if new_low < low else new_high]
                rows_left = self.max_tokens // PADDED_LENGTHS[new_high] - rows
                if rows_left <= 0:
                    continue
                more = min(queue.count(added), rows_left)
                padding = 1 - (useful + more * added) / ((rows + more) * PADDED_LENGTHS[new_high])
                if padding <= self.MAX_PADDING and (best is None or padding < best[0]):
                    best = (padding, new_low, new_high, rows + more, useful + more * added)
            if best is None:
                # Lengths at the end of the range without a window do not count: the batch is padded to its longest row.
                while high > at and not queue.count(PADDED_LENGTHS[high]):
                    high -= 1
                return PADDED_LENGTHS[low], PADDED_LENGTHS[high], rows
            _, low, high, rows, useful = best

    @staticmethod
    def _cut(queue: LengthQueue, urgent: Pending, low: int, high: int, rows: int) -> tuple[Pending, ...]:
        """Take the urgent window's own length first, then its neighbours from the longest down."""
        own = padded_length(urgent.length)
        taken = queue.take(own, rows)
        for length in reversed(PADDED_LENGTHS):
            if low <= length <= high and length != own:
                taken += queue.take(length, rows - len(taken))
        return tuple(taken)


class CallTimeout:
    """Timeout of a model call in seconds: far above what such calls take, since a server may go on computing after it.

    Five times the slowest seconds per token of the last 100 calls, times the tokens of this call; never below
    ``FLOOR``, so that a pause of the server is not taken for an outage, and ``CEILING`` before the first measurement.
    Each timeout doubles the next ones, since a server that has become slow gives no successes to measure; each success
    halves them again.
    """

    FACTOR = 5.0
    FLOOR = 10.0
    CEILING = 120.0

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=100)
        self._factor = 1.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Record one successful call of ``tokens`` = rows x padded length."""
        self._rates.append(seconds / tokens)
        self._factor = max(1.0, self._factor / 2)

    def missed(self) -> None:
        """A call ran into its timeout."""
        self._factor = min(self.CEILING / self.FLOOR, self._factor * 2)

    def seconds(self, tokens: int) -> float:
        """Timeout for a call of this many tokens."""
        if not self._rates:
            return self.CEILING
        return min(self.CEILING, self._factor * max(self.FLOOR, self.FACTOR * max(self._rates) * tokens))
