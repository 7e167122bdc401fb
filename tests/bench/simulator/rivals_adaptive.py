"""Policies that learn how long calls take: BentoML's, Clipper's, Symphony's and Razor's Edge's rules.

Written from what their authors published, with two changes for all: a stream may not shed load, so what is late is
sent all the same, and times are those that a client can measure.
"""

from __future__ import annotations

import random
import statistics
from collections import deque
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from bench.simulator.rivals import Fifo, batch_of, fitting
from bench.simulator.simulate import CALL_SECONDS, DELAY, MAX_TOKENS, ROW_SECONDS
from numpy.typing import NDArray

from consumer.batching.call_cost import Cell, fit_call_cost
from consumer.batching.policy import Batch, Decision
from consumer.batching.queue import PADDED_LENGTHS, padded_length

if TYPE_CHECKING:
    from collections.abc import Collection

    from bench.simulator.server import Profile
    from bench.simulator.simulate import Call

    from consumer.batching.policy import CallCost
    from consumer.batching.queue import Pending

FloatArray = NDArray[np.float64]


class Line:
    """Least squares of seconds over rows for the last calls: ``seconds = fixed + row * rows``."""

    def __init__(self, calls: int, row: float, fixed: float) -> None:
        """Of so many calls; ``row`` and ``fixed`` hold until ten were seen."""
        self._seen: deque[tuple[float, float]] = deque(maxlen=calls)
        self.row, self.fixed = row, fixed

    def add(self, rows: int, seconds: float) -> None:
        """One call."""
        self._seen.append((float(rows), seconds))
        if len(self._seen) < 10:
            return
        x, y = zip(*self._seen, strict=True)
        mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
        spread = sum((each - mean_x) ** 2 for each in x)
        if spread:
            self.row = max(1e-6, sum((a - mean_x) * (b - mean_y) for a, b in self._seen) / spread)
            self.fixed = max(0.0, mean_y - self.row * mean_x)

    def seconds(self, rows: int) -> float:
        """Predicted time of a call."""
        return self.fixed + self.row * rows


class BentoML(Fifo):
    """Waits while the time that it costs those who wait is below what waiting has cost before.

    ``n * (wait of the newest + tick + row) <= 0.95 * mean wait of the oldest``, from a line through the last 50 calls;
    asked again after a tick of a millisecond. Counts rows only. Its own limit is one call in flight.
    """

    TICK: Final = 0.001
    DECAY: Final = 0.95
    CALLS: Final = 50

    def __init__(self, rows: int, objective: float, calls: int) -> None:
        """At most ``rows`` a call; ``objective`` in seconds sets the line until calls were seen."""
        super().__init__(calls)
        self._rows = rows
        self._line = Line(self.CALLS, objective * 2 / 30, objective / 30)
        self._waits: deque[float] = deque(maxlen=self.CALLS)

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """Wait for a tick, or send."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            count = len(self._queue)
            cost = count * (now - self._queue[-1].enqueued + self.TICK + self._line.row)
            if count < self._rows and self._waits and cost <= self.DECAY * statistics.fmean(self._waits):
                return Decision(tuple(batches), now + self.TICK)
            self._waits.append(now - self._queue[0].enqueued)
            batches.append(self.take(fitting(self._queue, self._rows)))
        return Decision(tuple(batches), None)

    def answered(self, call: Call, now: float) -> None:
        """One more point for the line."""
        self._line.add(len(call.batch.windows), now - call.sent_at)


class Clipper(Fifo):
    """Additive increase, multiplicative decrease of the rows of a call, by whether its round trip met the objective."""

    STEP: Final = 2.0
    BACKOFF: Final = 0.9

    def __init__(self, objective: float, calls: int) -> None:
        """``objective`` in seconds, of a call."""
        super().__init__(calls)
        self._objective = objective
        self._rows = 1.0

    def decide(self, now: float, calls: Collection[Call]) -> Decision:  # noqa: ARG002 - it never waits
        """Fill the calls that are free."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            batches.append(self.take(fitting(self._queue, int(self._rows))))
        return Decision(tuple(batches), None)

    def answered(self, call: Call, now: float) -> None:
        """Larger while it is fast enough and full, smaller when it was not."""
        if now - call.sent_at > self._objective:
            self._rows = max(1.0, self._rows * self.BACKOFF)
        elif len(call.batch.windows) >= int(self._rows):
            self._rows = min(float(MAX_TOKENS), self._rows + self.STEP)


class Symphony(Fifo):
    """Deferred: a call leaves when one more window could no longer share it and be on time, or when it is full.

    With the earliest deadline d and the time l(b) of b rows, that is d - l(b + 1); an idle server waits until then.
    After it, so many rows as are on time; when not even one is, as many as there are, since nothing may be dropped.
    """

    def __init__(self, rows: int, objective: float, calls: int) -> None:
        """A call has ``rows`` at most; ``objective`` in seconds from a window's arrival to its deadline."""
        super().__init__(calls)
        self._rows = rows
        self._objective = objective
        self._line = Line(200, 0.001, 0.005)

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """Defer, or send."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            count = fitting(self._queue, self._rows)
            deadline = self._queue[0].enqueued + self._objective
            if count < self._rows and count == len(self._queue):
                leaves = deadline - self._line.seconds(count + 1)
                if now < leaves:
                    return Decision(tuple(batches), leaves)
            on_time = int((deadline - now - self._line.fixed) / self._line.row)
            batches.append(self.take(min(count, on_time) if on_time >= 1 else count))
        return Decision(tuple(batches), None)

    def answered(self, call: Call, now: float) -> None:
        """One more point for the line."""
        self._line.add(len(call.batch.windows), now - call.sent_at)


def measured_times(profile: Profile, seed: int) -> dict[int, FloatArray]:
    """What a client measures on the idle server before it starts: seconds by padded length and rows (index 0: none).

    Round trips of calls of 1, 2, 4 ... rows at five lengths, the median of three, interpolated in rows and in length
    and extended beyond the largest call.
    """
    rng = random.Random(f"{seed} measured")
    grid = (8, 64, 128, 256, 512)
    widest = MAX_TOKENS // PADDED_LENGTHS[0]
    every = np.arange(widest + 1, dtype=np.float64)
    rows_of: list[FloatArray] = []
    for length in grid:
        rows, seconds = [], []
        count = 1
        while count * length <= MAX_TOKENS:
            trips = [2 * DELAY + CALL_SECONDS + ROW_SECONDS * count + profile.drawn(count, length, rng) for _ in "123"]
            rows.append(float(count))
            seconds.append(statistics.median(trips))
            count *= 2
        line = np.interp(every, rows, seconds)
        slope = (seconds[-1] - seconds[-2]) / (rows[-1] - rows[-2])
        line[every > rows[-1]] += slope * (every[every > rows[-1]] - rows[-1])
        rows_of.append(line)
    table: dict[int, FloatArray] = {}
    for length in PADDED_LENGTHS:
        place = min(max(1, int(np.searchsorted(grid, length))), len(grid) - 1)
        share = (length - grid[place - 1]) / (grid[place] - grid[place - 1])
        table[length] = (1 - share) * rows_of[place - 1] + share * rows_of[place]
    return table


def measured_cost(profile: Profile, seed: int) -> CallCost:
    """What ``rexstream tune`` finds on the idle server: the fit to the median of three round trips of some shapes."""
    rng = random.Random(f"{seed} measured")
    cells = []
    for length in (16, 32, 64, 128, 256, 512):
        rows = 1
        while rows * length <= MAX_TOKENS:
            trips = [2 * DELAY + CALL_SECONDS + ROW_SECONDS * rows + profile.drawn(rows, length, rng) for _ in "123"]
            cells.append(Cell(rows, length, tuple(trips)))
            rows *= 2
    return fit_call_cost(cells)


Choice = Literal["fifo", "minmax", "guarded"]


class RazorsEdge:
    """Splits the queue, in order of length, into the calls that take least time in all, and sends one of them.

    Dynamic programming over a table of measured times. Which call goes next: the one with the oldest window (``fifo``),
    the one with the largest wait + predicted time (``minmax``), or the largest of those whose such sum is at least the
    mean of all (``guarded``). No levels, no deadlines.
    """

    LOOK: Final = 256
    """So many of the oldest windows are considered: the splitting takes their number squared."""

    def __init__(self, table: dict[int, FloatArray], choice: Choice, calls: int) -> None:
        """``table`` as ``measured_times`` gives it."""
        self._table = table
        self._choice = choice
        self._calls = calls
        self._queue: list[Pending] = []

    def add(self, window: Pending) -> None:
        """Behind the others."""
        self._queue.append(window)

    def answered(self, call: Call, now: float) -> None:
        """It measured at the start."""

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """Fill the calls that are free."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            parts = self.split(sorted(self._queue[: self.LOOK], key=lambda window: (window.length, window.id)))
            chosen = self._next(parts, now)
            taken = {window.id for window in chosen}
            self._queue = [window for window in self._queue if window.id not in taken]
            batches.append(batch_of(chosen))
        return Decision(tuple(batches), None)

    def split(self, ordered: list[Pending]) -> list[list[Pending]]:
        """Contiguous parts of least total time."""
        best = np.zeros(len(ordered) + 1)
        begins = [0] * (len(ordered) + 1)
        for end in range(1, len(ordered) + 1):
            length = padded_length(ordered[end - 1].length)
            rows = min(end, max(1, MAX_TOKENS // length))
            totals = best[end - rows : end] + self._table[length][rows:0:-1]
            place = int(totals.argmin())
            best[end] = totals[place]
            begins[end] = end - rows + place
        parts: list[list[Pending]] = []
        end = len(ordered)
        while end:
            parts.append(ordered[begins[end] : end])
            end = begins[end]
        return parts

    def _next(self, parts: list[list[Pending]], now: float) -> list[Pending]:
        oldest = [min(window.enqueued for window in part) for part in parts]
        if self._choice == "fifo":
            return parts[oldest.index(min(oldest))]
        scores = [
            now - at + float(self._table[padded_length(part[-1].length)][len(part)])
            for at, part in zip(oldest, parts, strict=True)
        ]
        if self._choice == "minmax":
            return parts[scores.index(max(scores))]
        mean = statistics.fmean(scores)
        return max(
            (part for part, score in zip(parts, scores, strict=True) if score >= mean), key=len, default=parts[0]
        )
