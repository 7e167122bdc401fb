"""The demo's audit: it must be able to fail."""

from __future__ import annotations

from consumer.local.demo_events import broken_events, sample_events
from consumer.local.demo_outcome import TASKS, Seen, missing

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


def test_a_whole_run_has_nothing_to_complain_about() -> None:
    """Every review has its results, every broken event its dead letter, the null value its count."""
    assert missing(SAMPLES, BROKEN, whole(), dropped=1) == []


def test_every_kind_of_loss_is_named() -> None:
    """A missing result, a missing dead letter, a good review among the dead letters, a drop that was not counted."""
    seen = whole()
    del seen.results[SAMPLES[2].key, "sentiment"]
    del seen.dead_letters[BROKEN[0].key]
    seen.dead_letters[SAMPLES[1].key] = {}
    lines = missing(SAMPLES, BROKEN, seen, dropped=0)
    assert len(lines) == 4
    assert any("sentiment" in line and SAMPLES[2].key in line for line in lines)
    assert any(BROKEN[0].key in line for line in lines)
    assert any(SAMPLES[1].key in line for line in lines)
    assert any("dropped" in line for line in lines)
