"""Metrics of single model versions, so that a new one can be watched beside the one before.

Which versions there are, the model servers decide. So the first ``LABEL_LIMITS["version"]`` have series of their own,
further ones share those of ``other``, and a version loses its series once others answer and it does not.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, TypedDict

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from consumer.telemetry.histogram import Histogram
from consumer.telemetry.metric_declarations import LABEL_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

FORGET_SECONDS = 900.0
"""A version that was not met for so long, while another was, loses its series."""
WINDOW_SECONDS = 60.0
OTHER = "other"

MODEL_CALL = (
    (
        "Round trip of a model call by the gRPC status and the version that answered; of a call that failed, the "
        "version that this server answered with last, empty before its first answer. A spike of OK means a busy model "
        "server; of any other code, the fault that the code names."
    ),
    ("model", "version", "code"),
    (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0),
)
"""Help, labels and buckets of ``rexstream_model_call_seconds``."""

VERSION_COUNTERS = {
    "rexstream_model_results_total": (
        "Results by the version that answered and the task. A spike of one version means that servers or keys were "
        "moved to it."
    ),
    "rexstream_model_results_empty_total": (
        "Results without any extraction. A spike of one version alone means that it finds less than the other."
    ),
    "rexstream_model_extractions_total": (
        "Entries of extractions in all results. A spike of one version alone means that it finds more than the other, "
        "or nonsense."
    ),
    "rexstream_model_results_warned_total": (
        "Results with warnings of the extraction or the model, not of the event's fields. A spike of one version alone "
        "means cells that overflow or events that it started again."
    ),
    "rexstream_model_restarts_total": (
        "Times that extractions began again since another version answered, by the version of the result. A spike "
        "means servers of several versions behind one address, or a roll-out."
    ),
}
"""Help by name; each has the labels model, version and task. In the order of the sums below."""

_Model = tuple[str, str]  # name and version, as labels
_Sums = tuple[int, ...]  # calls answered, calls failed, and a sum for each of VERSION_COUNTERS
_NOTHING: _Sums = (0,) * (2 + len(VERSION_COUNTERS))


class VersionActivity(TypedDict):
    """What one version of a model did in the last minute; all but its names are numbers of that minute."""

    name: str
    version: str
    calls: int
    failed_calls: int
    """Calls to servers that had answered with this version before they failed."""
    results: int
    empty_results: int
    extractions: int
    """Entries of ``extractions`` in all of these results."""


class VersionMetrics(Collector):
    """Calls and results by model version. ``called`` and ``made`` may be called from any thread, and cost an event next
    to nothing: what they are told is kept, and counted about once a second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: seconds, monotonic."""
        self._clock = clock
        self._lock = threading.Lock()
        self._calls = Histogram("rexstream_model_call_seconds", *MODEL_CALL)
        self._met: dict[_Model, float] = {}
        self._codes: dict[_Model, set[str]] = {}
        self._results: dict[tuple[str, str, str], list[int]] = {}
        self._sums: dict[_Model, _Sums] = {}
        self._looks: deque[tuple[float, dict[_Model, _Sums]]] = deque()
        calls: deque[tuple[str, str, str, float]] = deque()
        results: deque[tuple[str, str, str, int, bool, int]] = deque()
        self._new_calls, self._new_results = calls, results
        self.called = calls.append
        """``called((model, version, code, seconds))``: a call ended; empty ``version`` when none answered there yet."""
        self.made = results.append
        """``made((model, version, task, extractions, warned, restarts))``: a result, by the version that answered."""

    def count(self) -> None:
        """Count what happened since the last time, so that it takes no more memory."""
        with self._lock:
            self._count(self._clock())
            self._calls.count()

    def last_minute(self) -> list[VersionActivity]:
        """Every version that was met in the last minute, the one with the most results first."""
        with self._lock:
            self._count(self._clock())
            before = self._looks[0][1] if self._looks else {}
            found = []
            for (name, version), sums in self._sums.items():
                more = [now - then for now, then in zip(sums, before.get((name, version), _NOTHING), strict=True)]
                answered, failed, results, empty, extractions, *_ = more
                if version and any(more):
                    found.append(
                        VersionActivity(
                            name=name,
                            version=version,
                            calls=answered + failed,
                            failed_calls=failed,
                            results=results,
                            empty_results=empty,
                            extractions=extractions,
                        )
                    )
        return sorted(found, key=lambda each: (-each["results"], each["name"], each["version"]))

    def describe(self) -> Iterable[Metric]:
        """The metrics without their series."""
        return [*self._calls.describe(), *self._families()]

    def collect(self) -> Iterable[Metric]:
        """The metrics with all their series at this moment."""
        with self._lock:
            self._count(self._clock())
            families = self._families()
            for labels, sums in self._results.items():
                for family, value in zip(families, sums, strict=True):
                    family.add_metric(labels, value)
            return [*self._calls.collect(), *families]

    @staticmethod
    def _families() -> list[CounterMetricFamily]:
        return [
            CounterMetricFamily(name, text, labels=("model", "version", "task"))
            for name, text in VERSION_COUNTERS.items()
        ]

    def _count(self, now: float) -> None:
        if not self._looks or now - self._looks[-1][0] >= 1:
            self._looks.append((now, dict(self._sums)))
            while now - self._looks[0][0] > WINDOW_SECONDS:
                self._looks.popleft()
        more: dict[_Model, list[int]] = {}
        for _ in range(len(self._new_calls)):
            model, version, code, seconds = self._new_calls.popleft()
            key = self._known(model, version, now)
            codes = self._codes[key]
            if code not in codes and len(codes) >= LABEL_LIMITS["code"]:
                code = OTHER
            codes.add(code)
            self._calls.labels(*key, code).observe(seconds)
            more.setdefault(key, list(_NOTHING))[code != "OK"] += 1
        for (model, version, task, extractions, warned, restarts), times in self._taken().items():
            key = self._known(model, version, now)
            values = times, times * (not extractions), times * extractions, times * warned, times * restarts
            sums, its = self._results.setdefault((*key, task), [0] * len(values)), more.setdefault(key, list(_NOTHING))
            for at, value in enumerate(values):
                sums[at] += value
                its[2 + at] += value
        for key, its in more.items():
            then = self._sums.get(key, _NOTHING)
            self._sums[key] = tuple(a + b for a, b in zip(then, its, strict=True))
        if more:
            self._forget(now)

    def _taken(self) -> Counter[tuple[str, str, str, int, bool, int]]:
        """The results since the last time; equal ones, and most are, are counted at once."""
        return Counter(self._new_results.popleft() for _ in range(len(self._new_results)))

    def _known(self, model: str, version: str, now: float) -> _Model:
        """The labels of this version, which was met ``now``."""
        key = model, version
        if key not in self._met and len(self._met) >= LABEL_LIMITS["version"]:
            key = OTHER, OTHER
        self._met[key] = now
        self._codes.setdefault(key, set())
        return key

    def _forget(self, now: float) -> None:
        """Drop versions that were not met for long. Something was met now, so a worker without input keeps all."""
        for key in [key for key, met in self._met.items() if now - met > FORGET_SECONDS]:
            del self._met[key]
            for sums in (self._sums, *(sums for _, sums in self._looks)):
                sums.pop(key, None)
            for code in self._codes.pop(key):
                self._calls.remove(*key, code)
            for labels in [labels for labels in self._results if labels[:2] == key]:
                del self._results[labels]
