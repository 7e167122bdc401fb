from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cells import cells_of
from hypothesis import given
from hypothesis import strategies as st

from consumer.extraction.hint import Hint, Parent
from consumer.extraction.prompts import HintBuilder, PromptLimits
from consumer.extraction.spans import marker_hits, mean, score, sigmoid, span_hits
from consumer.extraction.task import Notes
from consumer.extraction.window import Cells, Window, write_window

if TYPE_CHECKING:
    from consumer.extraction.prompts import PromptTokenizer

TEXT = 6
"""Text tokens of the window under test."""


@pytest.fixture(scope="module")
def hint(tokenizer: PromptTokenizer) -> Hint:
    """``[CLS] [PREFIX] [TYPE] 甲 [TYPE] 乙 [SEP]``: types at 2 and 4, H = 7."""
    builder = HintBuilder(tokenizer, PromptLimits())
    packed = next(builder.pack([Parent((), (), {"甲": None, "乙": None})], Notes(), special=False))
    return builder.build(packed, special=False).hint


@pytest.fixture(scope="module")
def window(tokenizer: PromptTokenizer, hint: Hint) -> Window:
    return write_window(tokenizer, hint, np.full(TEXT, 700, dtype=np.int32))


def logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def shuffled(seed: int, density: float) -> dict[tuple[int, int], float]:
    """Cells in and around the window in random order, most of them positive, some exactly 0."""
    random = np.random.default_rng(seed)
    grid = [(row, column) for row in range(-1, 16) for column in range(-1, 16)]
    chosen = random.permutation(len(grid))[: int(len(grid) * density)]
    logits = np.maximum(random.normal(1, 1.5, len(chosen)), -0.5).round(1).astype(np.float32)
    return {grid[index]: float(logit) for index, logit in zip(chosen.tolist(), logits, strict=True)}


CELLS = st.builds(shuffled, st.integers(0, 2**32), st.floats(0, 1))


@given(cells=CELLS, final_sep=st.booleans())
def test_spans_are_those_of_an_exhaustive_search(
    hint: Hint, window: Window, cells: dict[tuple[int, int], float], final_sep: bool
) -> None:
    """Whatever cells come back, in whatever order, legal or not."""
    expected = []
    end = 7 + TEXT + final_sep
    for first in range(7, end):
        for last in range(first, end):
            for slot, token in enumerate((2, 4)):
                logits = [cells.get(cell, 0.0) for cell in ((first, last), (first, token), (token, last))]
                if all(logit > 0 for logit in logits):
                    expected.append((first, last, slot, sum(map(logistic, logits)) / 3))
    found = list(span_hits(hint, window, cells_of(cells), final_sep=final_sep))
    assert [(hit.first, hit.last, hit.slot) for hit in found] == [one[:3] for one in expected]
    assert [hit.score for hit in found] == pytest.approx([one[3] for one in expected], abs=6e-5)
    assert all(hit.score == round(hit.score, 4) for hit in found)


def test_a_logit_of_zero_is_not_positive(hint: Hint, window: Window) -> None:
    """The threshold is strict, in each of the three cells."""
    for zero in ((8, 9), (8, 2), (2, 9)):
        cells = {(8, 9): 1.0, (8, 2): 1.0, (2, 9): 1.0}
        assert len(list(span_hits(hint, window, cells_of(cells)))) == 1
        assert list(span_hits(hint, window, cells_of(cells | {zero: 0.0}))) == []


def test_a_repeated_cell_counts_once(hint: Hint, window: Window) -> None:
    """Classification cells may come a second time among the positive ones."""
    once = cells_of({(8, 9): 1.0, (8, 2): 1.0, (2, 9): 1.0})
    twice = Cells(np.tile(once.rows, 2), np.tile(once.columns, 2), np.tile(once.logits, 2))
    assert list(span_hits(hint, window, twice)) == list(span_hits(hint, window, once))


def test_no_cells_no_hits(hint: Hint, window: Window) -> None:
    """An empty answer is an answer."""
    assert list(span_hits(hint, window, cells_of({}))) == []
    assert list(marker_hits(hint, window, cells_of({}))) == []


@given(cells=CELLS)
def test_marker_hits_are_the_spans_of_the_marker(
    hint: Hint, window: Window, cells: dict[tuple[int, int], float]
) -> None:
    """Reading the 1 + 2T cells directly gives what the general search finds at the first text token."""
    answer = cells_of(cells)
    assert list(marker_hits(hint, window, answer)) == [
        hit for hit in span_hits(hint, window, answer) if hit.first == hit.last == 7
    ]


@given(cells=CELLS)
def test_the_blank_reading_takes_every_type(hint: Hint, window: Window, cells: dict[tuple[int, int], float]) -> None:
    """In hint order, with scores from the same cells; an absent cell counts as impossible."""
    found = list(marker_hits(hint, window, cells_of(cells), blank=True))
    assert [(hit.first, hit.last, hit.slot) for hit in found] == [(7, 7, 0), (7, 7, 1)]
    for hit, token in zip(found, (2, 4), strict=True):
        wanted = [cells.get(cell, -math.inf) for cell in ((7, 7), (7, token), (token, 7))]
        scores = [0.0 if logit == -math.inf else logistic(logit) for logit in wanted]
        assert hit.score == pytest.approx(sum(scores) / 3, abs=6e-5)


def test_scores_are_float32_means() -> None:
    """Extreme logits neither overflow nor warn."""
    with np.errstate(all="raise", under="ignore"):
        extremes = sigmoid(np.array([-np.inf, -500, 0, 500, np.inf], dtype=np.float32))
    assert extremes.dtype == np.float32
    assert extremes.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert mean(0.8808, 0.8808, 0.7311) == 0.8309


def test_a_score_is_what_float32_arithmetic_gives() -> None:
    """Rounded after every step: of a thousand scores one would show the difference."""
    probabilities = np.random.default_rng(7).random((3, 20_000), dtype=np.float32)
    span, head, tail = probabilities
    wanted = [round(score, 4) for score in ((span + head + tail) / np.float32(3)).tolist()]
    assert [mean(*three) for three in zip(*probabilities.tolist(), strict=True)] == wanted


@pytest.mark.parametrize("scale", [0.001, 1, 4, 1e30])
def test_a_score_of_positive_logits_is_that_of_float32_arithmetic(scale: float) -> None:
    """In double precision one of a thousand would be another one."""
    logits = np.abs(np.random.default_rng(11).normal(0, scale, (3, 20_000))).astype(np.float32)
    wanted = [mean(*three) for three in zip(*sigmoid(logits).tolist(), strict=True)]
    assert [score(*three) for three in zip(*logits.tolist(), strict=True)] == wanted


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=5))
def test_a_probability_is_the_logistic_function_in_float32(logits: list[float]) -> None:
    """Of any logit, and the logits stay as they were."""
    asked = np.array(logits, np.float32)
    found = sigmoid(asked)
    assert asked.tolist() == logits
    assert found.dtype == np.float32
    one = np.float32(1)
    assert found.tolist() == (one / (one + np.exp(np.minimum(-asked, np.float32(88))))).tolist()
