"""Cells out of a dense matrix, by the rule of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.extraction.window import Window
from consumer.serving.tensors import GraphContract, legal_cells

if TYPE_CHECKING:
    from consumer.serving.bundle import Bundle

TYPE, CLASSIFY, MULTICLASSIFY, WORD = 91, 92, 93, 5
GRAPH = GraphContract(
    contract=1, cells_per_window=4, pad=0, type=TYPE, classification=frozenset((CLASSIFY, MULTICLASSIFY))
)

#          CLS PREFIX TYPE  a  TYPE  b  SEP | text ...     SEP
HINT_IDS = [2, 90, TYPE, WORD, TYPE, WORD, 3]
SEGMENTS = [0, 256, 257, 257, 258, 258, 0]


def window(*text: int) -> Window:
    ids = np.array([*HINT_IDS, *text, 3], np.int32)
    segment = np.array(SEGMENTS + [0] * (len(text) + 1), np.int32)
    return Window(ids, np.arange(len(ids), dtype=np.int32), segment, len(HINT_IDS))


def by_the_specification(w: Window, logits: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[tuple[int, int]]:
    """The rule written as loops."""
    text = range(w.text_start, w.length - 1)
    types = [i for i in range(w.text_start) if w.input_ids[i] == TYPE]
    first: list[tuple[int, int]] = []
    start = w.text_start
    if start in text and w.input_ids[start] in (CLASSIFY, MULTICLASSIFY):
        first = [(start, start), *((start, t) for t in types), *((t, start) for t in types)]
    rest = []
    for row in range(w.length):
        for column in range(w.length):
            span = row in text and column in text and row <= column
            link = (row in text and column in types) or (row in types and column in text)
            if (span or link) and logits[row, column] > 0 and (row, column) not in first:
                rest.append((row, column))
    return first + rest


@given(
    text=st.lists(st.sampled_from([WORD, CLASSIFY, MULTICLASSIFY, TYPE]), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    padding=st.integers(0, 3),
)
def test_the_cells_are_those_of_the_specification(text: list[int], seed: int, padding: int) -> None:
    """Legal cells above 0 in row-major order, the marker's own cells first; padding and the last [SEP] never count."""
    w = window(*text)
    side = w.length + padding
    logits = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    logits[np.abs(logits) < 0.2] = 0.0  # zero is not positive
    cells = legal_cells(w, logits, GRAPH)
    found = list(zip(cells.rows.tolist(), cells.columns.tolist(), strict=True))
    assert found == by_the_specification(w, logits)
    assert cells.logits.tolist() == [float(logits[cell]) for cell in found]
    assert [array.dtype.name for array in cells] == ["int32", "int32", "float32"]


def test_a_marker_keeps_its_negative_cells() -> None:
    """With every logit negative a classification still gets its 1 + 2T cells, an extraction none."""
    negative = np.full((9, 9), -1.0, np.float32)
    marked = legal_cells(window(CLASSIFY), negative, GRAPH)
    assert marked.rows.tolist() == [7, 7, 7, 2, 4]
    assert marked.columns.tolist() == [7, 2, 4, 7, 7]
    assert len(legal_cells(window(WORD), negative, GRAPH).rows) == 0


def test_the_contract_comes_from_the_bundle(bundle: Bundle) -> None:
    """Token ids, K and hash are those of the exported bundle."""
    graph = GraphContract.of(bundle)
    assert (graph.contract, graph.cells_per_window, graph.pad) == (bundle.contract, 4, 0)
    assert graph.type == bundle.tokenizer.type
    assert graph.classification == {bundle.tokenizer.classify, bundle.tokenizer.multiclassify}


@pytest.mark.parametrize("marker", [CLASSIFY, MULTICLASSIFY])
def test_a_marker_inside_the_text_is_a_token_like_others(marker: int) -> None:
    """Only the first token of the text makes a classification."""
    negative = np.full((10, 10), -1.0, np.float32)
    assert len(legal_cells(window(WORD, marker), negative, GRAPH).rows) == 0
