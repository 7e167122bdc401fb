"""Series of single model servers."""

from __future__ import annotations

from consumer.telemetry.metric_declarations import LABEL_LIMITS
from consumer.telemetry.metrics import Metrics


def shown(metrics: Metrics, prefix: str = "rexstream_") -> list[str]:
    """Lines with an endpoint."""
    return [
        line
        for line in metrics.exposition()[0].decode().splitlines()
        if line.startswith(prefix) and "endpoint=" in line
    ]


def test_calls_are_counted_and_the_state_is_one_of_six() -> None:
    """What the endpoint counted since its start, not once more at every look."""
    metrics = Metrics()
    metrics.endpoints.show([("a:1", "ok", 5, 3, 1, 0, "", 1.0)])
    metrics.endpoints.show([("a:1", "outage", 0, 7, 2, 0, "why", 1.0)])
    lines = shown(metrics)
    assert 'rexstream_endpoint_calls_total{end="answered",endpoint="a:1"} 7.0' in lines
    assert 'rexstream_endpoint_calls_total{end="failed",endpoint="a:1"} 2.0' in lines
    assert [line for line in lines if "endpoint_state" in line and line.endswith(" 1.0")] == [
        'rexstream_endpoint_state{endpoint="a:1",state="outage"} 1.0'
    ]


def test_an_endpoint_that_is_closed_takes_its_series_along() -> None:
    """And begins at nothing when it comes back."""
    metrics = Metrics()
    metrics.endpoints.show([("a:1", "ok", 5, 3, 1, 0, "", 1.0), ("b:1", "ok", 0, 0, 0, 0, "", 1.0)])
    metrics.breaker("open", "a:1")
    metrics.endpoints.show([("b:1", "ok", 0, 0, 0, 0, "", 1.0)])
    assert not [line for line in shown(metrics) if "a:1" in line]
    metrics.breaker("open", "a:1")
    assert not [line for line in shown(metrics) if "a:1" in line], "its last probe may end after it"
    metrics.endpoints.show([("a:1", "trial", 0, 1, 0, 0, "", 1.0), ("b:1", "ok", 0, 0, 0, 0, "", 1.0)])
    assert 'rexstream_endpoint_calls_total{end="answered",endpoint="a:1"} 1.0' in shown(metrics)
    assert 'rexstream_breaker_state{endpoint="a:1"} 0.0' in shown(metrics)


def test_an_endpoint_that_went_and_came_back_between_two_looks_goes_on_counting() -> None:
    """As a new one, whose own counts begin at nothing; a counter never falls."""
    metrics = Metrics()
    metrics.endpoints.show([("a:1", "ok", 5, 30, 1, 0, "", 1.0)])
    metrics.endpoints.show([("a:1", "trial", 0, 2, 1, 0, "", 1.0)])
    assert 'rexstream_endpoint_calls_total{end="answered",endpoint="a:1"} 32.0' in shown(metrics)


def test_addresses_are_bounded_and_room_is_made_by_those_that_go() -> None:
    """A name may have had any number of addresses in a year."""
    metrics, limit = Metrics(), LABEL_LIMITS["endpoint"]
    for first in (0, 50, 1000):
        metrics.endpoints.show([(f"a:{first + n}", "ok", 0, 0, 0, 0, "", 1.0) for n in range(limit + 20)])
        assert len(shown(metrics, "rexstream_endpoint_in_flight")) == limit
