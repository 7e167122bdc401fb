"""How long a rebalance waits for records in flight before it leaves them to the partitions' next owner.

What finishes in that time is done once; what does not is done twice. The group waits with us, so the wait follows what
is to be expected: nearly all records of late took so long, and these were on their way already.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FLOOR_SECONDS = 1.0
"""Enough for a delivery report and a hiccup; less would not make a rebalance, which takes as long by itself, faster."""

UNKNOWN_SECONDS = 10.0
"""Before enough records have finished to tell."""

SAFETY = 2.0
QUANTILE = 0.95
"""Of the times in flight. The few beyond it are the stuck ones, which nobody should wait for."""

SAMPLES = 512
ENOUGH_SAMPLES = 20
"""The fewest of which one may lie beyond the quantile."""

STANDSTILL = frozenset({"outage", "deployment_fault", "output"})
"""Reasons of a pause during which nothing finishes: there is nothing to wait for."""


class RevokeBudget:
    """Watches how long records are in flight, from delivery until every output is durable. Pure; not thread-safe."""

    def __init__(self, ceiling_seconds: float) -> None:
        """Never more than ``ceiling_seconds``; raises ValueError for a negative one."""
        if ceiling_seconds < 0:
            raise ValueError(f"The longest wait of a revocation ({ceiling_seconds} s) cannot be negative.")
        self._ceiling = ceiling_seconds
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def observe(self, seconds: Iterable[float]) -> None:
        """Records became durable, so many seconds after they were delivered."""
        self._samples.extend(seconds)

    def seconds(self, paused: Collection[str]) -> float:
        """How long to wait now, while consumption is ``paused`` for these reasons."""
        if not STANDSTILL.isdisjoint(paused):
            return 0.0
        return min(self._ceiling, max(FLOOR_SECONDS, self._expected()))

    def _expected(self) -> float:
        if len(self._samples) < ENOUGH_SAMPLES:
            return UNKNOWN_SECONDS
        # Sorted only here: rebalances are rare, records are not.
        return SAFETY * sorted(self._samples)[math.ceil(QUANTILE * len(self._samples)) - 1]
