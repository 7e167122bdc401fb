"""Windows that wait for a call, and their order: the deadline of each, its lane's share, its padded length. Pure.

Fairness is here, as weights. An event has one full call by its own deadline (``EventShare``). A lane, to which routes
belong, has its weight's share of padded tokens (``LengthQueue.turn``).
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LANE: Final = "live"
"""The lane of routes that name none."""


def padded_length(length: int) -> int:
    """Round a window's length in tokens up: to a multiple of 8 up to 128, of 32 above.

    Few enough shapes to be warmed up, close enough together to waste little. Raises ValueError for a length outside
    1..512.
    """
    if not 1 <= length <= 512:
        raise ValueError(f"window length {length} is outside 1..512 tokens")
    return _PADDED[length]


_PADDED = tuple(-(-length // step) * step for length in range(513) for step in (8 if length <= 128 else 32,))

PADDED_LENGTHS = tuple(sorted(set(_PADDED[1:])))
"""All 28 lengths that a batch can have."""


def event_deadline(timestamp_ms: int | None, *, fetched_wall: float, fetched_at: float, objective: float) -> float:
    """Monotonic time (seconds) by which the event should be done; it orders the work.

    Its broker timestamp plus the objective. A record that was already older than the objective when it was fetched
    (restart, replay), or that claims to come from the future, counts from its fetch: by their own timestamps all
    records of a backlog would be overdue, and the deadline could not order them.
    """
    age = fetched_wall - timestamp_ms / 1000 if timestamp_ms is not None else 0.0
    return fetched_at - (age if 0 <= age <= objective else 0.0) + objective


@dataclass(frozen=True, slots=True)
class EventShare:
    """Which deadlines the windows of one event have: it is ahead of others with one full call, however large it is.

    What it sends beyond that waits for others. An event that the server computes within the objective is due an
    objective later than it would be: equally large ones are finished one after the other, first come, first served,
    since by turns all of them would end when the last one does. Others wait for it no longer than its own calls take.
    What a larger event sends counts as if it came now, and behind the windows that it and other large ones of its lane
    have waiting: each full call of those is a turn for others. A window's deadline never changes, so it is overtaken by
    no event that comes after it.
    """

    tokens: int
    """Of a full call."""
    objective: float
    """Seconds from an event to its deadline."""
    call: float
    """Seconds of a full call."""

    def is_over(self, sent: int) -> bool:
        """Whether an event that has sent so many tokens had its full call."""
        return sent >= self.tokens

    def deadline(self, own: float, now: float, waiting: int, windows: int, of_lane: int) -> float:
        """Of the next window of an event that ``is_over``, in seconds of the clock.

        ``own`` is the event's, ``waiting`` its tokens that are sent and not answered, ``windows`` how many it has had
        on all levels that it began, ``of_lane`` the tokens that wait of all such events of its lane.
        """
        if windows * PADDED_LENGTHS[-1] * self.call <= self.objective * self.tokens:
            return own + self.objective
        # A turn is worth a call where that is longer: else the next call of the event would leave before anything that
        # comes during this one.
        return max(own, now + self.objective) + max(self.objective, self.call) * max(waiting, of_lane) / self.tokens


@dataclass(slots=True, eq=False)
class Pending:
    """A window that waits. ``deadline`` and ``enqueued`` are seconds of the injected clock, ``length`` is in tokens."""

    id: int
    length: int
    deadline: float
    level: int
    enqueued: float
    lane: str = LANE
    over_share: bool = False
    """Whether its event had its full call before (``EventShare``)."""
    version: str = ""
    """Of the model that began its event, if any did."""


_Heaps = dict[int, list[tuple[float, int, int, Pending]]]
"""Windows by padded length, the most urgent of each length first."""


class _Lane:
    """The windows of one lane."""

    def __init__(self, weight: float) -> None:
        self.heaps: tuple[_Heaps, _Heaps] = ({n: [] for n in PADDED_LENGTHS}, {n: [] for n in PADDED_LENGTHS})
        """Those of events within their share, and those of events over it."""
        self.weight = weight
        self.tokens = 0
        """Padded tokens that wait."""
        self.used = 0.0
        """Padded tokens / weight that it was given while others had to wait."""


class LengthQueue:
    """Pending windows by lane and padded length, the most urgent of each length first.

    A batch pays for the longest of its rows, rounded up, so windows of one padded length cost each other nothing.
    Finding the most urgent window and the windows to send with it looks at each of the 28 lengths once, however long
    the queue is.

    While more waits than a call can hold, calls go to one lane each, the one that has used least for its weight
    (start-time fair queueing, Goyal 1996): of two lanes that wait all the time each gets its share to within a call. A
    lane that had nothing waiting begins where the least busy one is: it has saved up nothing.

    Windows of events over their share have calls of their own: what comes meanwhile would else be in calls as long as
    theirs, and wait for others as long.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, over_share: dict[str, int] | None = None) -> None:
        """``weights`` of all lanes, without them one. ``over_share``: of another queue, that counts those of both."""
        self._lanes = {name: _Lane(weight) for name, weight in (weights or {LANE: 1.0}).items()}
        self._open = [heaps for lane in self._lanes.values() for heaps in lane.heaps]
        """Where the windows are that the next call may have."""
        self._is_contended = False
        self._least_used = 0.0
        """Of the lane that had the last turn, before it: none that waits has less."""
        self._size = 0
        self.over_share = dict.fromkeys(self._lanes, 0) if over_share is None else over_share
        """Padded tokens that wait of events over their share, by lane."""
        self._over_share = 0
        """Windows of these, in this queue."""

    def __len__(self) -> int:
        return self._size

    @property
    def lanes(self) -> tuple[str, ...]:
        """All lanes."""
        return tuple(self._lanes)

    def add(self, pending: Pending) -> None:
        """Insert one window. Raises ValueError for a length outside 1..512 tokens, KeyError for an unknown lane."""
        length = padded_length(pending.length)
        lane = self._lanes[pending.lane]
        if not lane.tokens:
            lane.used = max(lane.used, self._least_used)
        # Deadline first; then the deeper level, so that started events finish first; then arrival.
        urgency = (pending.deadline, -pending.level, pending.id, pending)
        heapq.heappush(lane.heaps[pending.over_share][length], urgency)
        lane.tokens += length
        self._size += 1
        if pending.over_share:
            self._over_share += 1
            self.over_share[pending.lane] += length

    def turn(self, max_tokens: float) -> Pending | None:
        """Choose whose windows the next call, of ``max_tokens`` at most, may have; returns the most urgent of them.

        ``most_urgent``, ``counts`` and ``take`` are about these until the next turn. All lanes' as long as no more
        waits than the call can hold: then nobody has to wait for another's share.
        """
        lanes = list(self._lanes.values())
        if len(lanes) > 1:
            lanes = [lane for lane in lanes if lane.tokens]
            self._is_contended = len(lanes) > 1 and sum(lane.tokens for lane in lanes) > max_tokens
            if self._is_contended:
                lanes = [least := min(lanes, key=lambda lane: lane.used)]
                self._least_used = least.used
        kinds = (False, True) if self._over_share else (False,)
        self._open = [lane.heaps[kind] for lane in lanes for kind in kinds]
        urgent = self.most_urgent()
        if self._over_share and urgent is not None:
            self._open = [lane.heaps[urgent.over_share] for lane in lanes]
        return urgent

    def counts(self) -> list[tuple[int, int]]:
        """Padded length and number of windows, for each length that has any, in order of length."""
        if len(self._open) == 1:
            return [(length, len(heap)) for length, heap in self._open[0].items() if heap]
        sums = [(length, sum(len(heaps[length]) for heaps in self._open)) for length in PADDED_LENGTHS]
        return [(length, count) for length, count in sums if count]

    def most_urgent(self) -> Pending | None:
        """The window that must be in the next batch, or None when nothing waits."""
        heads = [heap[0] for heaps in self._open for heap in heaps.values() if heap]
        return min(heads)[3] if heads else None

    def take(self, length: int, rows: int) -> list[Pending]:
        """Remove up to ``rows`` windows of this padded length, the most urgent first."""
        taken: list[Pending] = []
        waiting = [heaps[length] for heaps in self._open if heaps[length]]
        while waiting and len(taken) < rows:
            heap = min(waiting) if len(waiting) > 1 else waiting[0]
            count = 1 if len(waiting) > 1 else min(rows - len(taken), len(heap))
            lane = self._lanes[heap[0][3].lane]
            if count == len(heap):  # takes half as long as one by one
                heap.sort()
                taken += [entry[3] for entry in heap]
                heap.clear()
            else:
                taken += [heapq.heappop(heap)[3] for _ in range(count)]
            lane.tokens -= count * length
            if self._is_contended:
                lane.used += count * length / lane.weight
            if not heap:
                waiting.remove(heap)
        self._size -= len(taken)
        if self._over_share:
            for window in taken:
                if window.over_share:
                    self._over_share -= 1
                    self.over_share[window.lane] -= length
        return taken


def by_lane(windows: tuple[Pending, ...], now: float) -> dict[str, tuple[int, float]]:
    """Of each lane in a batch: its rows, and the longest time that one of them has waited (seconds)."""
    oldest: dict[str, float] = {}
    for window in windows:
        if window.enqueued < oldest.setdefault(window.lane, now):
            oldest[window.lane] = window.enqueued
    rows = Counter([window.lane for window in windows])
    return {lane: (count, now - oldest[lane]) for lane, count in rows.items()}
