"""The demo's report."""

from __future__ import annotations

from consumer.local.demo_events import broken_events, sample_events
from consumer.local.demo_outcome import TASKS, Seen
from consumer.local.demo_summary import accuracy_lines, percentile

SAMPLES = sample_events()[:6]
BROKEN = broken_events()


def whole() -> Seen:
    seen = Seen()
    for event in SAMPLES:
        for task in TASKS:
            label = event.labels.get(task, "属性词")
            seen.results[event.key, task] = {"extractions": [[{"type": label, "span": None, "score": 0.9}]]}
    for event in BROKEN:
        if event.value is not None:
            seen.dead_letters[event.key] = {}
    return seen


def test_mistakes_are_counted() -> None:
    """The summary does not flatter the model."""
    seen = whole()
    seen.results[SAMPLES[0].key, "category"] = {"extractions": [[{"type": "天气", "span": None, "score": 0.9}]]}
    line = next(line for line in accuracy_lines(SAMPLES, seen) if line.startswith("category"))
    assert "5 of 6 right" in line
    assert "天气" in line


def test_percentiles() -> None:
    """By linear interpolation; a lone value stands for all."""
    assert percentile([5.0], 99) == 5.0
    assert percentile([float(n) for n in range(101)], 95) == 95.0
