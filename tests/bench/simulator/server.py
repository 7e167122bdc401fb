"""Simulated model servers: how long a call takes, alone and beside others.

Times are seconds of the simulated clock, lengths are tokens. The time of a call of B rows padded to L tokens, alone on
the server, is ``max(floor, fixed + token * B * L + square * B * L**2)``: a fixed cost, the matrix products that are
linear in tokens, attention that is quadratic in the length, and a floor below which no call gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from consumer.batching.call_cost import fit_call_cost

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from consumer.batching.call_cost import Cell

EPSILON: Final = 1e-9
"""Seconds of work that count as none: rounding leaves some."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A model on a machine. The figures are invented in the proportions of the kind, unless they were ``measured``."""

    name: str
    fixed: float
    """Seconds of any call."""
    token: float
    """Seconds a padded token."""
    square: float
    """Seconds a row and squared length."""
    floor: float = 0.0
    """Seconds that no call takes less than."""
    sharing: bool = False
    """Processor sharing: calls at the server advance together, each at an equal part of the speed. Otherwise FIFO."""
    noise: float = 0.06
    """Standard deviation of the logarithm of a call's time."""
    straggler_share: float = 0.004
    straggler_factor: float = 3.0
    """This share of the calls takes so many times as long."""
    cells: tuple[Cell, ...] = ()
    """Measured calls. A call takes what one of the nearest shape took (by the logarithms of rows and length), in the
    proportion of the formula; noise and stragglers are those measured."""

    def seconds(self, rows: int, length: int) -> float:
        """Time of a call alone, without noise."""
        if self.cells:
            cell = self._nearest(rows, length)
            return cell.seconds * self._formula(rows, length) / self._formula(cell.rows, cell.length)
        return self._formula(rows, length)

    def drawn(self, rows: int, length: int, rng: random.Random) -> float:
        """The same with noise: what one call takes."""
        if self.cells:
            cell = self._nearest(rows, length)
            return rng.choice(cell.repeats) * self._formula(rows, length) / self._formula(cell.rows, cell.length)
        factor = self.straggler_factor if rng.random() < self.straggler_share else 1.0
        return self._formula(rows, length) * factor * math.exp(rng.gauss(0.0, self.noise))

    def _formula(self, rows: int, length: int) -> float:
        return max(self.floor, self.fixed + (self.token + self.square * length) * rows * length)

    def _nearest(self, rows: int, length: int) -> Cell:
        def distance(cell: Cell) -> float:
            return math.hypot(math.log(cell.rows / rows), math.log(cell.length / length))

        return min(self.cells, key=distance)


GPU: Final = Profile("GPU-like", fixed=0.006, token=8e-6, square=1e-8)
"""One stream, so calls wait for each other; a call of 16,384 tokens takes 0.15 to 0.22 seconds."""
CPU: Final = Profile("CPU-like", fixed=0.002, token=5e-5, square=1e-7, sharing=True)
"""TensorFlow Serving on a few cores: concurrent calls share one pool of threads. 512 tokens in a row take 54 ms."""
HIGH_FLOOR: Final = Profile("high floor", fixed=0.006, token=8e-6, square=1e-8, floor=0.08)
"""No call below 80 ms, as behind a slow proxy or with a kernel launch for every small operation."""


def measured(cells: Sequence[Cell], *, sharing: bool) -> Profile:
    """Of a server whose calls, one after the other, took what the cells say."""
    cost = fit_call_cost(cells)
    return Profile("measured", cost.fixed, cost.per_token, cost.per_pair, cost.floor, sharing, cells=tuple(cells))


class Slowdown(NamedTuple):
    """A stretch of time in which the server needs ``factor`` times as long."""

    begin: float
    end: float
    factor: float


@dataclass(slots=True)
class _Job:
    call: int
    left: float


class Server:
    """One server. The owner moves its clock: ``advance`` to every ``next_change`` at the latest."""

    def __init__(self, profile: Profile, rng: random.Random, slow: Slowdown | None = None) -> None:
        """``rng`` draws the noise; ``slow`` is a stretch in which the server is slower."""
        self._profile = profile
        self._rng = rng
        self._slow = slow
        self._jobs: list[_Job] = []
        self._now = 0.0
        self.busy = 0.0
        """Seconds in which it had a call."""

    def __len__(self) -> int:
        return len(self._jobs)

    def arrive(self, now: float, call: int, rows: int, length: int) -> None:
        """A call reaches the server. It must have been advanced to ``now``."""
        self.arrive_with(now, call, self._profile.drawn(rows, length, self._rng))

    def arrive_with(self, now: float, call: int, work: float) -> None:
        """A call that takes ``work`` seconds alone. Raises ValueError unless the server was advanced to ``now``."""
        if self._jobs and abs(now - self._now) > EPSILON:
            raise ValueError(f"the server stands at {self._now}, the call arrives at {now}")
        self._now = now
        self._jobs.append(_Job(call, work))

    def next_change(self) -> float:
        """When the next call is done or the speed changes, whichever comes first; infinity without a call."""
        if not self._jobs:
            return math.inf
        job = min(self._jobs, key=lambda job: job.left) if self._profile.sharing else self._jobs[0]
        finish = self._now + job.left * self._factor() * (len(self._jobs) if self._profile.sharing else 1)
        if self._slow is not None:
            for edge in (self._slow.begin, self._slow.end):
                if self._now < edge < finish:
                    return edge
        return finish

    def advance(self, now: float) -> list[int]:
        """Work until ``now``; the calls that are done then, in order of arrival."""
        if not self._jobs:
            self._now = now
            return []
        elapsed = now - self._now
        self.busy += elapsed
        work = elapsed / self._factor()
        self._now = now
        if self._profile.sharing:
            each = work / len(self._jobs)
            for job in self._jobs:
                job.left -= each
            done = [job.call for job in self._jobs if job.left <= EPSILON]
            self._jobs = [job for job in self._jobs if job.left > EPSILON]
            return done
        first = self._jobs[0]
        first.left -= work
        if first.left > EPSILON:
            return []
        del self._jobs[0]
        return [first.call]

    def lose(self) -> list[int]:
        """The server dies; the calls that it had."""
        lost = [job.call for job in self._jobs]
        self._jobs = []
        return lost

    def _factor(self) -> float:
        slow = self._slow
        return slow.factor if slow is not None and slow.begin <= self._now < slow.end else 1.0
