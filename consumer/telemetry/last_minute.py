"""What happened in the last minute, for ``/status``. ``Metrics`` fills it."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from consumer.telemetry.status import LOG_GROWTH, Counts

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_SECONDS = 60


class LastMinute:
    """Sums, and values in logarithmic buckets, of the last ``WINDOW_SECONDS``. Thread-safe.

    Holds one set of counts a second with at most 590 buckets a name, so memory does not grow with traffic, apart from
    what happened since the latest ``count``: for speed nothing is counted when it happens.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._seconds: dict[int, Counts] = {}
        self._events = 0
        latencies: deque[float] = deque()
        batches: deque[tuple[int, int, int]] = deque()
        self._latencies, self._batches = latencies, batches
        self.durable = latencies.append
        """``durable(latency)``: an event is durable so many seconds after its timestamp."""
        self.sent = batches.append
        """``sent((rows, useful_tokens, padded_tokens))``: a batch leaves."""

    def count(self, events: int) -> None:
        """Count what happened since the last time as if it were now; ``events`` were processed since the start."""
        with self._counting:
            more = max(events - self._events, 0)  # less, if another thread looked later and was here first
            self.add(events=more)
            self._events += more
            self.add_value("latency", *[self._latencies.popleft() for _ in range(len(self._latencies))])
            for _ in range(len(self._batches)):
                rows, useful_tokens, sent_tokens = self._batches.popleft()
                self.add(windows=rows, useful_tokens=useful_tokens, sent_tokens=sent_tokens)
                self.add_value("rows", rows)
                self.add_value("tokens", sent_tokens)

    def add(self, **sums: int) -> None:
        """Raise ``sums`` now."""
        with self._lock:
            counts = self._this_second()
            for name, amount in sums.items():
                counts[name] += amount

    def add_value(self, name: str, *values: float) -> None:
        """Record values (not NaN; clamped to 1e-4 .. 1e6) now."""
        buckets = [(name, math.ceil(math.log(min(max(value, 1e-4), 1e6)) / LOG_GROWTH)) for value in values]
        with self._lock:
            self._this_second().update(buckets)

    def summed(self) -> tuple[Counts, float]:
        """All counts, and the seconds they were made in: fewer than the window at the start, but at least 1."""
        total: Counts = Counter()
        with self._lock:
            self._this_second()
            for counts in self._seconds.values():
                total.update(counts)
        return total, min(max(self._clock() - self._started, 1.0), float(WINDOW_SECONDS))

    def _this_second(self) -> Counts:
        """The counts of this second; those that are older than the window are gone then."""
        now = int(self._clock())
        if now not in self._seconds:
            for second in [second for second in self._seconds if second <= now - WINDOW_SECONDS]:
                del self._seconds[second]
            self._seconds[now] = Counter()
        return self._seconds[now]
