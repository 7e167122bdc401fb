"""The last minute in numbers: rates and quantiles in bounded memory, however many events pass."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Slot = TypeVar("Slot")

_GROWTH = 1.04
"""Bucket borders grow by this factor, so the middle of a bucket is at most 2 % away from what it holds."""
_LOG_GROWTH = math.log(_GROWTH)
_SMALLEST = 1e-4
_LARGEST = 1e6


class RollingQuantiles:
    """Values of the last ``seconds`` seconds, counted in logarithmic buckets, one set of buckets a second.

    Holds at most ``seconds`` sets of at most 590 counters, so memory does not grow with traffic. Values are clamped to
    1e-4 .. 1e6. Safe to use from several threads.
    """

    def __init__(self, seconds: int = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = _at_least_one(seconds)
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[int, dict[int, int]] = {}

    def add(self, value: float) -> None:
        """Record a value (not NaN) now."""
        bucket = math.ceil(math.log(min(max(value, _SMALLEST), _LARGEST)) / _LOG_GROWTH)
        now = int(self._clock())
        with self._lock:
            _expire(self._slots, now - self._seconds)
            slot = self._slots.setdefault(now, {})
            slot[bucket] = slot.get(bucket, 0) + 1

    def quantiles(self, *shares: float) -> tuple[float | None, ...]:
        """For each share (0..1) the value at or below which that share lies, within 2 %; None without values."""
        merged: dict[int, int] = {}
        with self._lock:
            _expire(self._slots, int(self._clock()) - self._seconds)
            for slot in self._slots.values():
                for bucket, count in slot.items():
                    merged[bucket] = merged.get(bucket, 0) + count
        total = sum(merged.values())
        return tuple(_at_rank(merged, max(1, math.ceil(share * total))) if total else None for share in shares)


class RollingSum:
    """Sum of the amounts of the last ``seconds`` seconds, and their rate. Safe to use from several threads."""

    def __init__(self, seconds: int = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = _at_least_one(seconds)
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._slots: dict[int, float] = {}

    def add(self, amount: float) -> None:
        """Record an amount now."""
        now = int(self._clock())
        with self._lock:
            _expire(self._slots, now - self._seconds)
            self._slots[now] = self._slots.get(now, 0.0) + amount

    @property
    def total(self) -> float:
        """Sum over the window."""
        with self._lock:
            _expire(self._slots, int(self._clock()) - self._seconds)
            return sum(self._slots.values())

    @property
    def per_second(self) -> float:
        """Mean rate over the window, or since the start while that is shorter (but over at least a second)."""
        return self.total / min(max(self._clock() - self._started, 1.0), float(self._seconds))


def _at_least_one(seconds: int) -> int:
    if seconds < 1:
        raise ValueError(f"a window of {seconds} s holds nothing; give at least 1")
    return seconds


def _expire(slots: dict[int, Slot], oldest: int) -> None:
    for second in [second for second in slots if second <= oldest]:
        del slots[second]


def _at_rank(buckets: dict[int, int], rank: int) -> float:
    seen = 0
    reached = 0
    for bucket in sorted(buckets):
        reached = bucket
        seen += buckets[bucket]
        if seen >= rank:
            break
    # The middle in relative terms: equally far, in per cent, from both borders of the bucket.
    return float(2 * _GROWTH**reached / (_GROWTH + 1))
