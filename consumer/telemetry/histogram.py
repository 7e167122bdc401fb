"""A histogram for Prometheus whose observations cost next to nothing: they are kept, and counted now and then.

An event makes six observations. The library's take two locks and look through the buckets in Python: 2 to 3 us each.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Series:
    """The observations of one combination of label values. From any thread.

    Each takes 32 bytes until ``count`` or ``read`` is called.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        """``bounds``: the upper ends of the buckets, the last one infinite."""
        self._bounds = bounds
        self._counts = [0] * len(bounds)
        self._sum = 0.0
        self._lock = threading.Lock()
        self._uncounted: deque[float] = deque()
        self.observe = self._uncounted.append
        """``observe(value)``: take note of one value; not NaN."""

    def read(self) -> tuple[list[int], float]:
        """How many values each bucket and those below it have, and the sum of all values."""
        with self._lock:
            self._count()
            return list(accumulate(self._counts)), self._sum

    def count(self) -> None:
        """Count what was observed, so that it takes no more memory."""
        with self._lock:
            self._count()

    def _count(self) -> None:
        uncounted, bounds, counts = self._uncounted, self._bounds, self._counts
        for _ in range(len(uncounted)):  # not until it is empty: others may go on adding
            value = uncounted.popleft()
            counts[bisect_left(bounds, value)] += 1
            self._sum += value


class Histogram(Collector):
    """One metric with its series. A metric without labels has its only series from the start."""

    def __init__(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        """``buckets``: upper ends, ascending; values above the last one are counted, too."""
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = (*buckets, math.inf)
        self._ends = [floatToGoString(bound) for bound in self._bounds]  # type: ignore[no-untyped-call]
        self._series: dict[tuple[str, ...], Series] = {}
        self._lock = threading.Lock()
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Series:
        """The series of these label values, as many as there are labels."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {len(values)} of them")
        with self._lock:
            if values not in self._series:
                self._series[values] = Series(self._bounds)
            return self._series[values]

    def remove(self, *values: str) -> None:
        """Drop the series of these label values. Whoever still holds it observes for nobody."""
        with self._lock:
            self._series.pop(values, None)

    def count(self) -> None:
        """As ``Series.count``, of every series."""
        for _, series in self._every():
            series.count()

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The metric without its series."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The metric with all its series at this moment."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in self._every():
            counts, total = series.read()
            family.add_metric(values, list(zip(self._ends, map(float, counts), strict=True)), total)
        return [family]

    def _every(self) -> list[tuple[tuple[str, ...], Series]]:
        with self._lock:
            return list(self._series.items())
