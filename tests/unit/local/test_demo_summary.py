"""The demo's report, drawn."""

from __future__ import annotations

import json
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from consumer.local.demo_events import DemoEvent, Fact, broken_events
from consumer.local.demo_outcome import Seen, WorkerNumbers
from consumer.local.demo_summary import percentile, summary

REVIEWS = {
    "a": "第一台平板屏幕漏光，换；第二台WiFi搜不到，再换；第三台总算能用，可是一个月不到充电口就松了，要拿书压着线。",
    "b": "外观漂亮，机身薄，放包里不占地方。",
}
ASPECT, GOOD, BAD = "属性词", "正向情感(情感词)", "负向情感(情感词)"
GOLD: dict[str, set[Fact]] = {
    "a": {((ASPECT, 5, 7), (BAD, 7, 9)), ((ASPECT, 15, 19), (BAD, 19, 22))},
    "b": {((ASPECT, 0, 2), (GOOD, 2, 4)), ((ASPECT, 5, 7), (GOOD, 7, 8)), ((ASPECT, None, None), (GOOD, 12, 16))},
}
FOUND: dict[str, list[Fact]] = {"a": [((ASPECT, 5, 7), (GOOD, 7, 9)), ((ASPECT, None, None), (GOOD, 31, 33))], "b": []}
WORKER = WorkerNumbers(3, 30, 10.0, 0.1, 1e8, 1)


def drawn(width: int) -> str:
    samples, seen = [], Seen(latencies_ms=[1000.0])
    for key, text in REVIEWS.items():
        labels = {"category": "计算机", "sentiment": "正向情感"}
        samples.append(DemoEvent(key, json.dumps({"text": text}).encode(), None, labels, frozenset(GOLD[key])))
        facts = [
            [{"type": kind, "start": start, "end": end, "score": 0.9} for kind, start, end in path]
            for path in FOUND[key]
        ]
        for task, extractions in (
            ("product_features", facts),
            ("category", [[{"type": "洗发水", "score": 0.9}]]),
            ("sentiment", [[{"type": "负向情感", "score": 0.9}]]),
        ):
            seen.results[key, task] = {"extractions": extractions, "timing": {"model_calls": 2}}
    broken = broken_events()
    for event in broken:
        message = "type '属性词' has a list as children; send null or an object"
        seen.dead_letters[event.key] = {"rexstream-dlq-class": "InvalidSchema", "__dlq.errors.message": message}
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(summary(samples, broken, REVIEWS, 2.0, seen, WORKER, 2, width, 12_300_000))
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_tables_fit_the_terminal_and_lose_nothing(width: int) -> None:
    """No line is wider, no word or name is broken, and only a long review ends with an ellipsis."""
    page = drawn(width)
    assert max(map(cell_len, page.splitlines())) <= width
    assert page.count("…") <= 1
    names = ("WiFi", "计算机", "洗发水", "负向情感", "InvalidSchema", "属性词", "12.3 M", "not UTF-8")
    assert [name for name in names if name not in page] == []
    assert "(is 计算机)" in page


def test_a_wide_terminal_has_a_label_and_what_is_right_on_one_line() -> None:
    """A narrow one has them below each other."""
    assert "洗发水 (is 计算机)" in drawn(140)
    assert "洗发水 (is 计算机)" not in drawn(80)


def test_facts_are_marked_against_the_annotations() -> None:
    """A wrong polarity says the right one; what is not annotated is wrong; what is missing is listed."""
    page = drawn(140)
    for line in ("✗ 屏幕 → 漏光 (is 负)", "✗ (product) → 能用", "○ WiFi → 搜不到", "○ (product) → 不占地方"):
        assert line in page, line
    assert "○ 屏幕 → 漏光" not in page


def test_every_task_has_a_figure() -> None:
    """Two labels wrong of two; no fact right of five annotated ones."""
    lines = [re.sub(" +", " ", line) for line in drawn(140).splitlines()]
    assert any("sentiment 0% right 0 of 2" in line for line in lines)
    assert any("product features F1 0.00 strict, against 5 annotated facts in 2 reviews" in line for line in lines)
    assert any("What the model gets wrong most: " in line for line in lines)


def test_percentiles() -> None:
    """By linear interpolation; a lone value stands for all."""
    assert percentile([5.0], 99) == 5.0
    assert percentile([float(n) for n in range(101)], 95) == 95.0
