"""What an event's own schema may cost, and how many bytes a result may have."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.events import BadInput
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer
from consumer.extraction.task import INLINE, INLINE_SCHEMA_CHARS, ExtractionLimits, Task
from consumer.extraction.window import Cells, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.extraction.engine import Extraction

NESTED = {"属性": {"评价": {"原因": None}}}
LONG_REVIEW = "屏幕很清晰，电池也耐用，就是包装有点旧，客服回复很快。" * 106  # 2,862 characters: the longest of 52,000


def greedy(window: Window, spans: int) -> Cells:
    """Every type at ``spans`` places, each as long as it can be, and every label."""
    start, end = window.text_start, window.length - 1
    types = (np.flatnonzero(np.diff(window.segment[:start]) != 0) + 1).tolist()
    firsts = range(start, min(start + spans, end))
    cells = [(first, end - 1) for first in firsts]
    cells += [(first, kind) for first in firsts for kind in types] + [(kind, end - 1) for kind in types]
    cells += [(start, start)] + [(kind, start) for kind in types] + [(start, kind) for kind in types]
    rows, columns = np.array(cells, dtype=np.int32).T
    return Cells(rows, columns, np.full(len(rows), 5, dtype=np.float32))


def answered(extraction: Extraction, spans: int = 3) -> Extraction:
    while not extraction.finished:
        extraction.advance([greedy(window, spans) for window in extraction.windows])
    return extraction


def json_bytes(extraction: Extraction) -> int:
    paths = [[asdict(fact) for fact in path] for path in extraction.result().paths]
    return len(json.dumps(paths, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize("kind", ["extract", "classify"])
def test_a_schema_of_an_events_own_has_fewer_model_calls(small_engine: Callable[..., Engine], kind: Any) -> None:
    """At the start and on later levels; the message names the key. A configured task has its own budget."""
    engine = small_engine(inline_model_calls=5)
    text = "长" * 5000
    with pytest.raises(BadInput, match=r"limits\.inline_model_calls") as caught:
        engine.start(text, Task(INLINE, kind, NESTED))
    assert caught.value.reason == "TooManyModelCalls"
    assert len(engine.start(text, Task("configured", kind, NESTED)).windows) > 5
    extraction = engine.start("长" * 2000, Task(INLINE, "extract", NESTED))
    with pytest.raises(BadInput, match=r"limits\.inline_model_calls"):
        answered(extraction, spans=200)


def test_the_budget_of_every_task_bounds_that_of_inline_schemas(small_engine: Callable[..., Engine]) -> None:
    """Who lowers limits.model_calls lowers both."""
    engine = small_engine(model_calls=5, inline_model_calls=256)
    with pytest.raises(BadInput, match=r"limits\.model_calls"):
        engine.start("长" * 5000, Task(INLINE, "extract", NESTED))


def test_three_levels_over_a_long_review_fit(engine: Engine) -> None:
    """With fifty facts found on each level: more than a sane schema gives."""
    extraction = engine.start(LONG_REVIEW, Task(INLINE, "extract", NESTED))
    answered(extraction, spans=8)
    assert len(extraction.result().paths) >= 50
    assert 20 < extraction.model_calls < ExtractionLimits().inline_model_calls


def test_the_names_of_an_events_own_schema_are_bounded_together(engine: Engine) -> None:
    """They are tokenised before any window can be counted. A configured schema was looked at by somebody."""
    wide = {f"{number:0511}": None for number in range(INLINE_SCHEMA_CHARS // 511)}
    engine.start("好", Task(INLINE, "extract", wide))
    over = {"a": {"b": {**wide, "c" * 511: None}}}
    with pytest.raises(BadInput) as caught:
        engine.start("好", Task(INLINE, "extract", over))
    assert (caught.value.stage, caught.value.reason) == ("validate", "SchemaTooLarge")
    engine.start("好", Task("configured", "extract", over))


def test_a_result_has_at_most_so_many_bytes(small_engine: Callable[..., Engine]) -> None:
    """Facts that share a long stretch of the text, each with its own copy of it: the rest goes, with a warning."""
    text = "前" + " " * 40_000 + "后" * 40
    task = Task("t", "extract", {"甲": None, "乙": None})
    unbounded = answered(small_engine(text_chars=50_000, result_bytes=10**9).start(text, task), 50)
    assert json_bytes(unbounded) > 80_000
    assert not [w for w in unbounded.result().warnings if w.startswith("result-capped")]
    capped = answered(small_engine(text_chars=50_000, result_bytes=50_000).start(text, task), 50)
    assert json_bytes(capped) <= 50_000
    kept, all_paths = capped.result().paths, unbounded.result().paths
    assert kept == all_paths[: len(kept)]
    (warning,) = (w for w in capped.result().warnings if w.startswith("result-capped"))
    assert "50000" in warning
    assert f"{len(all_paths) - len(kept)} paths" in warning


@settings(deadline=None, max_examples=60)
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip),
    most=st.integers(1, 20_000),
    spans=st.integers(1, 40),
)
def test_no_result_is_larger_whatever_is_in_it(
    tokenizer: PromptTokenizer, text: str, name: str, most: int, spans: int
) -> None:
    """Control characters and quotes take up to six bytes each."""
    engine = Engine(tokenizer, PromptLimits(), ExtractionLimits(result_bytes=most))
    try:
        extraction = answered(engine.start(text, Task("t", "extract", {name: {"下": None}})), spans)
    except BadInput:
        return
    assert json_bytes(extraction) <= max(most, len("[]"))
    whole = answered(
        Engine(tokenizer, PromptLimits(), ExtractionLimits(result_bytes=10**9)).start(
            text, Task("t", "extract", {name: {"下": None}})
        ),
        spans,
    )
    kept = len(extraction.result().paths)
    assert extraction.result().paths == whole.result().paths[:kept]
    # Nothing is left out that would have fitted by far.
    if kept < len(whole.result().paths):
        assert json_bytes(whole) + 200 * sum(map(len, whole.result().paths)) > most
