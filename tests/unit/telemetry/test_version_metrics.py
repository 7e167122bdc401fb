from __future__ import annotations

import pytest

from consumer.codecs.outputs import ModelUsed
from consumer.telemetry.metric_declarations import LABEL_LIMITS
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.version_metrics import FORGET_SECONDS


class World:
    """Metrics with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.metrics = Metrics(clock=lambda: self.now)

    def result(self, version: str, extractions: int = 1, *, warned: bool = False, restarts: int = 0) -> None:
        model = ModelUsed("m", version, "compact")
        self.metrics.result_made(model, "aspects", extractions, warned=warned, restarts=restarts)

    def call(self, version: str, code: str = "OK") -> None:
        self.metrics.model_called("m", version, code, 0.02)

    def total(self, name: str, version: str) -> float | None:
        labels = {"model": "m", "version": version, "task": "aspects"}
        return self.metrics.registry.get_sample_value(f"rexstream_model_{name}_total", labels)

    def calls(self, version: str, code: str = "OK", model: str = "m") -> float | None:
        labels = {"model": model, "version": version, "code": code}
        return self.metrics.registry.get_sample_value("rexstream_model_call_seconds_count", labels)

    def series(self) -> int:
        families = [each for each in self.metrics.registry.collect() if each.name.startswith("rexstream_model_")]
        return sum(len(family.samples) for family in families)


def test_results_are_counted_by_the_version_that_answered() -> None:
    """What a new version finds stands beside what the one before finds."""
    world = World()
    for extractions in (0, 0, 3):
        world.result("4", extractions, warned=extractions == 3, restarts=2 if extractions else 0)
    world.result("3", 5)
    names = ("results", "results_empty", "extractions", "results_warned", "restarts")
    assert [world.total(name, "4") for name in names] == [3, 2, 3, 1, 2]
    assert [world.total(name, "3") for name in names] == [1, 0, 5, 0, 0]


def test_a_result_that_no_model_was_asked_for_is_no_versions() -> None:
    """Every type was skipped."""
    world = World()
    world.result("")
    assert world.series() == 0


def test_a_version_that_others_have_replaced_loses_its_series() -> None:
    """A quarter of an hour after it was met for the last time, and it may come back."""
    world = World()
    world.call("3")
    world.call("3", "UNAVAILABLE")
    world.result("3")
    assert (world.calls("3"), world.calls("3", "UNAVAILABLE"), world.total("results", "3")) == (1, 1, 1)
    world.now = FORGET_SECONDS
    world.call("4")
    assert (world.calls("3"), world.total("results", "3")) == (1, 1)
    world.now += 1
    world.call("4")
    assert (world.calls("3"), world.calls("3", "UNAVAILABLE"), world.total("results", "3")) == (None, None, None)
    assert world.calls("4") == 2
    world.now += 5
    world.result("3")
    assert world.total("results", "3") == 1
    assert [(each["version"], each["results"]) for each in world.metrics.versions.last_minute()] == [("3", 1), ("4", 0)]


def test_a_worker_without_input_keeps_its_series() -> None:
    """A night without reviews is no reason to forget a version, and one that only fails is not forgotten either."""
    world = World()
    world.call("3")
    world.now = 10 * FORGET_SECONDS
    world.metrics.count()
    assert world.calls("3") == 1
    for _ in range(4):
        world.now += FORGET_SECONDS / 2
        world.call("3", "UNAVAILABLE")
        world.call("4")
    assert world.calls("3", "UNAVAILABLE") == 4


def test_versions_that_a_server_invents_make_a_bounded_number_of_series() -> None:
    """The surplus is counted as other; when the first ones are forgotten there is room again."""
    world = World()
    for number in range(1000):
        world.call(f"{number}")
        world.result(f"{number}")
    limit = LABEL_LIMITS["version"]
    assert world.calls("0") == 1
    assert world.calls("other", model="other") == 1000 - limit
    assert world.series() <= (limit + 1) * 25
    world.now = 2 * FORGET_SECONDS
    world.call("1001")
    world.call("1001")
    assert world.calls("0") is None
    world.call("1001")
    assert world.calls("1001") == 1


def test_the_last_minute_has_the_versions_that_answered_in_it() -> None:
    """With numbers of that minute only, and the one with most results first."""
    world = World()
    world.call("3")
    for step in range(1, 121):
        world.now = float(step)
        world.call("4")
        world.result("4", step % 2)
        world.metrics.count()
    world.call("5", "UNAVAILABLE")
    four, five = world.metrics.versions.last_minute()
    assert four["version"] == "4"
    assert four["calls"] == pytest.approx(60, abs=1)
    assert four["empty_results"] == pytest.approx(30, abs=1)
    assert four["extractions"] + four["empty_results"] == four["results"]
    assert five == {
        "name": "m",
        "version": "5",
        "calls": 1,
        "failed_calls": 1,
        "results": 0,
        "empty_results": 0,
        "extractions": 0,
    }
