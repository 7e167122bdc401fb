"""Pauses between tries of a server that fails. Pure; every growing pause of a worker is made here."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling from ``first`` to ``limit`` seconds, with jitter: workers that failed together retry apart.

    ``least`` is the share of the doubled time that is waited in any case: 0 is full jitter. ``uniform`` draws.
    """

    first: float = 0.1
    limit: float = 10.0
    uniform: Callable[[float, float], float] = random.uniform
    least: float = 0.0

    def longest(self, failures: int) -> float:
        """Seconds after ``failures`` earlier failures in a row, without jitter."""
        return min(self.limit, self.first * 2.0 ** min(failures, 20))

    def pause(self, failures: int) -> float:
        """Seconds to wait after ``failures`` earlier failures in a row: a random part of ``longest``."""
        longest = self.longest(failures)
        return self.uniform(self.least * longest, longest)
