"""The histograms of a worker: what they say is what the library's say of the same values."""

from __future__ import annotations

import random
import sys
import threading

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from consumer.telemetry.histogram import Histogram

BUCKETS = (0.001, 0.25, 0.5, 1.0, 3600.0)


def text_of(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def of(labels: tuple[str, ...] = ()) -> tuple[Histogram, CollectorRegistry]:
    registry = CollectorRegistry()
    histogram = Histogram("some_seconds", "What it is.", labels, BUCKETS)
    registry.register(histogram)
    return histogram, registry


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_its_text_is_that_of_the_librarys_histogram(count: int) -> None:
    chosen = random.Random(count)
    # On the borders, beyond the last one, and whole numbers: their sum is exact in any order.
    values = [chosen.choice((*BUCKETS[1:], 0, 2, 5000)) for _ in range(count)]
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    expected = CollectorRegistry()
    theirs = prometheus_client.Histogram("some_seconds", "What it is.", ("a",), buckets=BUCKETS, registry=expected)
    ours, found = of(("a",))
    for value in values:
        theirs.labels("x").observe(value)
        ours.labels("x").observe(value)
    if count:
        assert f'some_seconds_count{{a="x"}} {count}' in text_of(found)
    assert text_of(found) == text_of(expected)


def test_what_was_read_once_is_not_counted_again() -> None:
    histogram, registry = of()
    assert "some_seconds_count 0.0" in text_of(registry)
    for count in range(1, 4):
        histogram.labels().observe(0.5)
        assert f"some_seconds_count {count}.0" in text_of(registry)


def test_a_series_needs_a_value_for_each_label() -> None:
    histogram, _ = of(("stage",))
    with pytest.raises(ValueError, match="stage"):
        histogram.labels()


def test_no_observation_is_lost_while_others_observe_and_read() -> None:
    histogram, registry = of()
    series, each, before = histogram.labels(), 5000, sys.getswitchinterval()
    threads = [threading.Thread(target=lambda: [series.observe(1.0) for _ in range(each)]) for _ in range(3)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            text_of(registry)
            histogram.count()
    finally:
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join()
    assert f"some_seconds_count {3 * each}.0" in text_of(registry)
    assert f"some_seconds_sum {3 * each}.0" in text_of(registry)
