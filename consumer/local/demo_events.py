"""Input of the demo: the sample reviews with what their author marked, and the broken events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consumer.config.shipped import shipped
from consumer.evaluation.paths import Named

if TYPE_CHECKING:
    from consumer.evaluation.paths import NamedPath

_WHOLE = [0, 1]
"""Place of the product as a whole in gold, whose texts begin with a sign for it (docs/extraction.md, section 13)."""


@dataclass(frozen=True, slots=True)
class DemoEvent:
    """A record to send and, for a broken one, what is wrong with it."""

    key: str
    value: bytes | None
    fault: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """The sample's own category and sentiment, to compare with the model's."""
    facts: frozenset[NamedPath] | None = None
    """What its author marked in it; None where nobody looked."""


def sample_events() -> list[DemoEvent]:
    """The shipped reviews, as a producer would send them, with their gold facts."""
    gold = {line["id"]: gold_facts(line) for line in _lines("schemas/samples/product_features.jsonl")}
    return [_sample(line, gold.get(line["event_id"])) for line in _lines("schemas/samples/reviews.jsonl")]


def gold_facts(line: dict[str, Any]) -> frozenset[NamedPath]:
    """The facts of a line in RexUniNLU's form, in places of the review itself: its text there begins with ``#``."""
    return frozenset(tuple(map(_part, path)) for path in line["info_list"])


def _part(marked: dict[str, Any]) -> Named:
    if marked["offset"] == _WHOLE:
        return Named(marked["type"], None, None, None)
    start, end = marked["offset"]
    return Named(marked["type"], marked["span"], start - 1, end - 1)


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shipped(name).read_text("utf-8").splitlines() if line.strip()]


def _sample(review: dict[str, Any], facts: frozenset[NamedPath] | None) -> DemoEvent:
    return DemoEvent(
        key=review["event_id"],
        value=json.dumps(review, ensure_ascii=False).encode(),
        labels={name: review["attributes"][name] for name in ("category", "sentiment")},
        facts=facts,
    )


def broken_events() -> list[DemoEvent]:
    """One event for each mistake that a producer can make, and a null value, which is dropped."""

    def event(key: str, fault: str, value: object) -> DemoEvent:
        body = value if isinstance(value, bytes) or value is None else json.dumps(value, ensure_ascii=False).encode()
        return DemoEvent(key, body, fault)

    deep: dict[str, Any] = {"最里层": None}
    for level in range(12):
        deep = {f"第{level}层": deep}
    return [
        event("broken-utf8", "not UTF-8", b'{"event_id": "broken-utf8", "text": "\xff\xfe\xfa"}'),
        event("broken-json", "not JSON", '{"event_id": "broken-json", "text": "少了一个括号"'.encode()),
        event("broken-array", "not an object", ["这不是", "一个事件"]),
        event("broken-missing", "text is missing", {"event_id": "broken-missing", "product_id": "p-1"}),
        event("broken-empty", "text is empty", {"event_id": "broken-empty", "text": ""}),
        event("broken-type", "text is a number", {"event_id": "broken-type", "text": 42}),
        event("broken-long", "text too long", {"event_id": "broken-long", "text": "很" * 50_001}),
        event("broken-task", "unknown task", {"event_id": "broken-task", "text": "挺好", "tasks": ["no_such_task"]}),
        event("broken-deep", "schema too deep", {"event_id": "broken-deep", "text": "挺好用的", "schema": deep}),
        event(
            "broken-wide",
            "schema too wide",
            {"event_id": "broken-wide", "text": "挺好用的", "schema": {f"类型{i}": None for i in range(600)}},
        ),
        event(
            "broken-schema",
            "schema is not a tree",
            {"event_id": "broken-schema", "text": "挺好用的", "schema": {"属性词": ["好评", "差评"]}},
        ),
        event("broken-null", "null value", None),
    ]
