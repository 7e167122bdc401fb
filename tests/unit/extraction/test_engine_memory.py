"""What an extraction holds: planned windows instead of laid out ones, compact tokens, bounded caches."""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pytest
from cells import cells_of

from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer
from consumer.extraction.task import INLINE, ExtractionLimits, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.extraction.window import Cells, Window

    Mark = Callable[[Window, Sequence[tuple[int, int, int]]], Cells]

HAN = [chr(0x4E00 + number) for number in range(3000)]
NONE = cells_of({})


def words(chance: random.Random, characters: int) -> str:
    return "".join(chance.choices(HAN, k=characters))


def schema(chance: random.Random, types: int, characters: int) -> dict[str, None]:
    return dict.fromkeys(f"{number:03}{words(chance, characters)}" for number in range(types))


def kept_after(call: Callable[[], object]) -> tuple[object, int]:
    """What ``call`` returns, and the bytes that are in use because of it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = call()
        return result, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_windows_are_planned_and_not_laid_out(engine: Engine) -> None:
    """Some 3,600 windows would be 23 MB of arrays; also while the level is answered only one is there at a time."""
    chance = random.Random(3)
    task = Task("t", "extract", schema(chance, 512, 117))
    engine.start("好", task)  # the hints of level 0 are the task's, and stay
    text = words(chance, 3000)
    extraction, kept = kept_after(lambda: engine.start(text, task))
    assert len(extraction.windows) > 3000  # type: ignore[attr-defined]
    assert kept < 500_000
    _, kept = kept_after(lambda: [extraction.read(NONE) for _ in range(3000)])  # type: ignore[attr-defined]
    assert kept < 200_000


def test_a_token_of_a_text_is_counted_as_it_is_held(small_engine: Callable[..., Engine]) -> None:
    """Ids and offsets as arrays: Python's pairs took more than a hundred bytes a token."""
    engine, text = small_engine(text_chars=50_000), words(random.Random(4), 40_000)
    task = Task("t", "extract", {"物": None})
    engine.start("好", task)
    extraction, kept = kept_after(lambda: engine.start(text, task))
    assert kept <= extraction.held_bytes + 50_000 < 1_000_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["extract", "classify", "multi_classify"])
def test_what_was_found_is_counted_as_it_is_held(engine: Engine, kind: str) -> None:
    """Every cell positive, on two levels: facts, votes, parents and prompts are within what ``held_bytes`` says."""
    chance = random.Random(5)
    text = words(chance, 2000)
    task = Task("t", kind, {name: {"评": None} for name in schema(chance, 120, 0)})  # type: ignore[arg-type]
    start = engine.start(text, task)
    answers = [everything(window) for window in start.windows]

    def first_level() -> object:
        extraction = engine.start(text, task)
        extraction.advance(answers)
        return extraction

    first_level()
    extraction, kept = kept_after(first_level)
    assert extraction.level == 1  # type: ignore[attr-defined]
    assert kept <= extraction.held_bytes + 600_000  # type: ignore[attr-defined]
    assert extraction.held_bytes < 4_000_000  # type: ignore[attr-defined]


def everything(window: Window) -> Cells:
    """Text x text in the first tokens, and all links of these: some thousand facts."""
    start = window.text_start
    text, hint = range(start, min(start + 4, window.length - 1)), range(start)
    cells = dict.fromkeys([(row, column) for row in text for column in text if row <= column], 2.0)
    cells |= dict.fromkeys([(row, column) for row in text for column in hint], 2.0)
    return cells_of(cells | dict.fromkeys([(row, column) for row in hint for column in text], 2.0))


def test_a_span_of_many_characters_is_not_held_for_each_fact(small_engine: Callable[..., Engine]) -> None:
    """Words that the tokenizer does not know are one token: a hundred facts of 30,000 characters each."""
    engine, text = small_engine(text_chars=50_000), " ".join(["ξ" * 99] * 300)
    task = Task("t", "extract", schema(random.Random(6), 100, 0))
    window = engine.start(text, task).windows[0]
    length = window.length
    types = np.flatnonzero(window.input_ids[: window.text_start] == engine.tokenizer.type).tolist()
    cells = {(window.text_start, length - 2): 2.0}
    cells |= dict.fromkeys([(window.text_start, kind) for kind in types], 2.0)
    cells |= dict.fromkeys([(kind, length - 2) for kind in types], 2.0)

    def found() -> object:
        extraction = engine.start(text, task)
        extraction.advance([cells_of(cells), *(NONE for _ in extraction.windows[1:])])
        return extraction

    assert kept_after(found)[1] < 1_500_000


def test_schemas_of_events_cost_nothing_afterwards_and_take_nothing_from_the_routes_tasks(
    tokenizer: PromptTokenizer,
) -> None:
    """Eighty of 512 types held 196 MiB; what the route's task had built before them is still there."""
    engine = Engine(tokenizer, PromptLimits(), ExtractionLimits())
    chance = random.Random(7)
    mine = Task("mine", "extract", {"物": {"优点": None, "缺点": None}})

    def answered(task: Task) -> object:
        extraction = engine.start("杯子很好", task)
        (window,) = extraction.windows
        types = np.flatnonzero(window.input_ids[: window.text_start] == tokenizer.type).tolist()
        first = window.text_start
        extraction.advance([cells_of({(first, first): 2.0, (first, types[0]): 2.0, (types[0], first): 2.0})])
        return extraction.windows._cut(0)[1].hint  # type: ignore[attr-defined]

    hint = answered(mine)
    engine.start("好", Task(INLINE, "extract", schema(chance, 512, 28)))

    def flood() -> None:
        for number in range(300):
            types = 512 if number % 20 == 0 else 10
            engine.start("好", Task(INLINE, "extract", schema(chance, types, 28 if number % 2 else 20)))

    _, kept = kept_after(flood)
    assert kept < 6_000_000
    assert answered(mine) is hint


def test_a_type_is_tokenised_once_however_many_parents_it_stands_below(tokenizer: PromptTokenizer, mark: Mark) -> None:
    """Also names that are too long to be asked for: for a thousand parents that took the event loop a minute."""
    engine = Engine(tokenizer, PromptLimits(), ExtractionLimits())
    chance = random.Random(8)
    below = schema(chance, 300, 130)
    extraction = engine.start(words(chance, 60), Task("t", "extract", {"物": below, "评": {"好": None}}))
    (window,) = extraction.windows
    spans = [(first, last, kind) for first in range(40) for last in range(first, first + 4) for kind in (0, 1)]
    answer = mark(window, spans)
    with mock.patch.object(tokenizer, "ids", side_effect=tokenizer.ids) as ids:
        extraction.read(answer)
    assert sum(call.args[0] in below for call in ids.call_args_list) == 300
