"""The compact signature returns the legal cells: the marker's first, then positives row by row, at most K."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.extraction.window import Window

pytestmark = pytest.mark.model

K = 12
TYPE, CLASSIFY, MULTICLASSIFY, PREFIX, SEP = 41, 42, 43, 40, 3


@pytest.fixture(scope="module")
def select(agreed: Callable[[int], Any]) -> Any:
    """Inputs of the signature and a logit matrix for each row -> (cells, scores, count), as the exported graph does."""
    import tensorflow as tf

    from consumer.model import graph as selection

    matrix, column = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 1], tf.int32)

    def run(input_ids: Any, segment: Any, length: Any, text_start: Any, logits: Any) -> Any:
        tokens = selection.roles(input_ids, tf.cast(segment, tf.float32), length, text_start, agreed(K))
        return selection.select(logits, tokens, K)

    specs = [matrix, matrix, column, column, tf.TensorSpec([None, None, None], tf.float32)]
    graph = tf.function(run, input_signature=specs)
    return lambda inputs, logits: [
        part.numpy()
        for part in graph(inputs["input_ids"], inputs["segment"], inputs["length"], inputs["text_start"], logits)
    ]


def expected_cells(window: Window, logits: Any) -> list[tuple[int, int]]:
    """Straight from the contract: every cell of the matrix is asked whether it is legal."""
    start, end = window.text_start, window.length - 1
    types = [i for i in range(start) if window.input_ids[i] == TYPE and window.segment[i] > 0]
    first = []
    if start < end and window.input_ids[start] in (CLASSIFY, MULTICLASSIFY):
        first = [(start, start), *((start, t) for t in types), *((t, start) for t in types)]
    rest = []
    for row in range(window.length):
        for column in range(window.length):
            row_text, column_text = start <= row < end, start <= column < end
            legal = (row_text and column_text and row <= column) or (row_text and column in types)
            legal = legal or (row in types and column_text)
            if legal and logits[row, column] > 0 and (row, column) not in first:
                rest.append((row, column))
    return first + rest


prompts = st.builds(
    lambda prefixes, text, marker, seed: (prefixes, text, marker, seed),
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), min_size=1, max_size=3)), min_size=1, max_size=3),
    st.integers(0, 6),
    st.sampled_from([None, CLASSIFY, MULTICLASSIFY, TYPE, PREFIX]),
    st.integers(0, 999),
)


@settings(max_examples=120, deadline=None)
@given(
    batch=st.lists(prompts, min_size=1, max_size=4),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    extra=st.integers(0, 9),
)
def test_cells_are_those_of_the_contract(batch: list[Any], share: float, extra: int, micro: Any, select: Any) -> None:
    """For any prompts, markers, share of positive logits and padding: order, scores, fill and count."""
    from consumer.serving.tensors import pad

    windows = [micro.prompt(prefixes, text, marker, seed) for prefixes, text, marker, seed in batch]
    length = max(window.length for window in windows) + extra
    rng = np.random.default_rng(batch[0][3])
    logits = rng.uniform(0.1, 5.0, (len(windows), length, length)) * np.where(
        rng.random((length, length)) < share, 1, -1
    )
    logits = np.where(rng.random(logits.shape) < 0.02, 0.0, logits).astype(np.float32)
    cells, scores, count = select(pad(windows, length, 0), logits)
    assert cells.shape == scores.shape == (len(windows), K)
    for row, window in enumerate(windows):
        expected = expected_cells(window, logits[row])
        assert count[row, 0] == len(expected)
        kept = expected[:K]
        assert cells[row].tolist() == [r << 16 | c for r, c in kept] + [0] * (K - len(kept))
        assert scores[row].tolist() == [logits[row][cell] for cell in kept] + [0.0] * (K - len(kept))


def test_padding_that_looks_like_tokens_adds_no_cells(micro: Any, select: Any) -> None:
    """Pads filled with [TYPE], a real segment and high logits stay out."""
    from consumer.serving.tensors import pad

    window = micro.prompt([(0, (1, 1))], text=3, marker=CLASSIFY)
    inputs = pad([window], window.length + 6, TYPE)
    inputs["segment"][0, window.length :] = 257
    logits = np.ones((1, window.length + 6, window.length + 6), np.float32)
    cells, _, count = select(inputs, logits)
    expected = expected_cells(window, logits[0])
    assert count[0, 0] == len(expected) > K
    assert cells[0].tolist() == [r << 16 | c for r, c in expected[:K]]


def test_a_hint_without_a_text_has_no_cells(micro: Any, select: Any) -> None:
    """[CLS] hint [SEP], where the text would start behind the last token, is legal and finds nothing."""
    from consumer.serving.tensors import pad

    full = micro.prompt([(0, (1,))], text=4)
    end = full.text_start
    window = type(full)(full.input_ids[:end], full.position_ids[:end], full.segment[:end], end)
    assert window.input_ids[-1] == SEP
    for length in (end, end + 3):
        cells, scores, count = select(pad([window], length, 0), np.ones((1, length, length), np.float32))
        assert not cells.any()
        assert not scores.any()
        assert count.tolist() == [[0]]


def test_largest_coordinates_survive_packing(micro: Any, select: Any) -> None:
    """Row 510 and column 510 of a window of 512 tokens come back exactly."""
    from consumer.serving.tensors import pad

    window = micro.prompt([(0, (1,))], text=506)
    assert window.length == 512
    logits = np.full((1, 512, 512), -1.0, np.float32)
    last = window.length - 2
    logits[0, last, last] = 3.5
    cells, scores, count = select(pad([window], 512, 0), logits)
    assert (cells[0, 0] >> 16, cells[0, 0] & 0xFFFF, scores[0, 0], count[0, 0]) == (last, last, 3.5, 1)


def test_a_type_marker_inside_the_text_is_text(micro: Any, select: Any) -> None:
    """Where literal markers are honoured, a [TYPE] in the text opens a segment, but stands for no type of the hint."""
    from consumer.serving.tensors import pad

    window = micro.prompt([(0, (1,))], text=3, marker=TYPE)
    window.segment[window.text_start :] = 258
    logits = np.ones((1, window.length, window.length), np.float32)
    cells, _, count = select(pad([window], window.length, 0), logits)
    expected = expected_cells(window, logits[0])
    assert count[0, 0] == len(expected) == 4 * 5 / 2 + 2 * 4
    assert cells[0].tolist() == [r << 16 | c for r, c in expected[:K]]
