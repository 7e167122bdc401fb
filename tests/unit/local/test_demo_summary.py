"""The demo's report, drawn."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from rich.console import Console

from consumer.evaluation.paths import Named
from consumer.local.demo_events import DemoEvent, broken_events
from consumer.local.demo_outcome import Seen, WorkerNumbers
from consumer.local.demo_summary import percentile, summary

if TYPE_CHECKING:
    from consumer.evaluation.paths import NamedPath

REVIEWS = {
    "a": "第一台平板屏幕漏光，换；第二台WiFi搜不到，再换；第三台总算能用，可是一个月不到充电口就松了，要拿书压着线。",
    "b": "外观漂亮，机身薄，放包里不占地方。",
}
ASPECT, GOOD, BAD = "属性词", "正向情感(情感词)", "负向情感(情感词)"


def fact(text: str, aspect: str | None, polarity: str, opinion: str) -> NamedPath:
    """Where the words stand first."""
    parts = ((ASPECT, aspect), (polarity, opinion))
    starts = [None if words is None else text.index(words) for _, words in parts]
    ends = [
        None if start is None else start + len(words or "") for start, (_, words) in zip(starts, parts, strict=True)
    ]
    return tuple(Named(*part, start, end) for part, start, end in zip(parts, starts, ends, strict=True))


A, B = REVIEWS.values()
GOLD = {
    "a": {fact(A, "屏幕", BAD, "漏光"), fact(A, "WiFi", BAD, "搜不到")},
    "b": {fact(B, "外观", GOOD, "漂亮"), fact(B, "机身", GOOD, "薄"), fact(B, None, GOOD, "不占地方")},
}
FOUND = {"a": [fact(A, "屏幕", GOOD, "漏光"), fact(A, None, GOOD, "能用")], "b": []}
WORKER = WorkerNumbers(3, 30, 10.0, 0.1, 1e8, 1)


def drawn(width: int) -> str:
    samples, seen = [], Seen(latencies_ms=[1000.0])
    for key, text in REVIEWS.items():
        labels = {"category": "计算机", "sentiment": "正向情感"}
        samples.append(DemoEvent(key, json.dumps({"text": text}).encode(), None, labels, frozenset(GOLD[key])))
        facts = [[part._asdict() | {"score": 0.9} for part in path] for path in FOUND[key]]
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
    page = re.sub(r"[\s│]+", " ", drawn(140))
    assert "sentiment 0% right 0 of 2; " in page
    assert "product features F1 0.00 strict, against 5 annotated facts in 2 reviews" in page
    assert "precision 0.00, recall 0.00, 95 % interval of F1 0.00 to 0.00 What the model gets wrong most: " in page


def test_percentiles() -> None:
    """By linear interpolation; a lone value stands for all."""
    assert percentile([5.0], 99) == 5.0
    assert percentile([float(n) for n in range(101)], 95) == 95.0
