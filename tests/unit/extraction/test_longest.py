"""What the longest text may ask of a model, before there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.config.task_files import load_tasks
from consumer.extraction.longest import SPAN, fitting_text_chars, longest_text_calls
from consumer.extraction.prompts import PromptLimits, PromptTokenizer
from consumer.extraction.task import ExtractionLimits, Task
from consumer.extraction.window import Cells, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.extraction.engine import Engine

TASKS = load_tasks()
LIMITS = ExtractionLimits()
DEEP = Task("deep", "extract", {"属性": {"评价": {"原因": None, "程度": None}}, "人": None}, implicit_aspect="#")
TOPICS = Task("topics", "multi_classify", {"商品": {"质量": {"做工": None}, "外观": None}, "服务": {"客服": None}})


WORD = "始于很好看的壳"  # eight tokens with the comma behind it


def full(window: Window, begins: int) -> Cells:
    """Every type at every word, wherever windows cut the text; every label."""
    start, end = window.text_start, window.length - 1
    types = (np.flatnonzero(np.diff(window.segment[:start]) != 0) + 1).tolist()
    firsts = [first for first in range(start, end - 7) if window.input_ids[first] == begins]
    cells = [(first, first + 7) for first in firsts] + [(first, kind) for first in firsts for kind in types]
    cells += [(kind, first + 7) for first in firsts for kind in types]
    cells += [(start, start)] + [(start, kind) for kind in types] + [(kind, start) for kind in types]
    rows, columns = np.array(cells, dtype=np.int32).T
    return Cells(rows, columns, np.full(len(rows), 5, dtype=np.float32))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_default_limits_agree_for_every_shipped_task(tokenizer: PromptTokenizer, name: str) -> None:
    """A text that limits.text_chars lets in is no dead letter for limits.model_calls, however much is found in it."""
    calls = longest_text_calls(tokenizer, PromptLimits(), TASKS[name], LIMITS.text_chars, LIMITS.facts)
    assert sum(calls) <= LIMITS.model_calls


@pytest.mark.parametrize("task", [DEEP, TOPICS, TASKS["product_features"], TASKS["hierarchical_topic"]])
@pytest.mark.parametrize("characters", [300, 2000])
def test_no_extraction_asks_more(small_engine: Callable[..., Engine], task: Task, characters: int) -> None:
    """Of a model that finds everything, in a text of as many tokens: and it is no wild guess either."""
    engine = small_engine(facts=60)
    assert len(SPAN) == len(WORD) + 1 == len(engine.tokenizer.ids(WORD)) + 1
    predicted = longest_text_calls(engine.tokenizer, engine.prompt_limits, task, characters, 60)
    (begins,) = engine.tokenizer.ids(WORD[0])
    extraction: Any = engine.start(((WORD + "，") * characters)[:characters], task)
    while not extraction.finished:
        extraction.advance([full(window, begins) for window in extraction.windows])
    assert len(predicted) == extraction.level
    assert extraction.model_calls <= sum(predicted) <= 3 * extraction.model_calls


def test_the_longest_text_that_fits(tokenizer: PromptTokenizer) -> None:
    """One character more does not."""
    task = TASKS["relation"]
    fits = fitting_text_chars(tokenizer, PromptLimits(), task, 1000, 500)
    within, beyond = (sum(longest_text_calls(tokenizer, PromptLimits(), task, size, 1000)) for size in (fits, fits + 1))
    assert within <= 500 < beyond
    assert fitting_text_chars(tokenizer, PromptLimits(), task, 1000, 1) == 0
