"""From a window's cells to spans of types (specification sections 10 and 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.extraction.hints import Hint
    from consumer.extraction.window import Cells, FloatArray, IntArray, Window


class Hit(NamedTuple):
    """Tokens ``first`` to ``last`` of a window are a span of the hint's type number ``slot``."""

    first: int
    last: int
    slot: int
    score: float
    """Mean of the sigmoids of span, head and tail cell in float32, rounded to 4 decimals."""


def span_hits(hint: Hint, window: Window, cells: Cells, *, final_sep: bool = False) -> Iterator[Hit]:
    """Every span whose own, head and tail cells are all positive, row-major, then in hint order of its types.

    ``final_sep`` counts the last ``[SEP]`` as text, as the reference does. Cells that mean nothing are ignored.
    """
    start = window.text_start
    end = window.length - (not final_sep)
    positive = cells.logits > 0
    rows, columns = cells.rows[positive], cells.columns[positive]
    from_text = (rows >= start) & (rows < end)
    to_text = (columns >= start) & (columns < end)
    spans = np.flatnonzero(from_text & to_text & (rows <= columns))
    if not len(spans):
        return
    probabilities = sigmoid(cells.logits[positive])
    heads = _Links(rows, _slots(hint, columns, from_text), probabilities)
    tails = _Links(columns, _slots(hint, rows, to_text), probabilities)
    by_cell = sorted(
        zip(rows[spans].tolist(), columns[spans].tolist(), probabilities[spans].tolist(), strict=True),
    )
    previous = (-1, -1)
    for first, last, probability in by_cell:
        common = heads.slots.get(first, 0) & tails.slots.get(last, 0)
        if not common or (first, last) == previous:
            continue
        previous = (first, last)
        while common:
            slot = (common & -common).bit_length() - 1
            common &= common - 1
            yield Hit(first, last, slot, mean(probability, heads.at[first, slot], tails.at[last, slot]))


def marker_hits(hint: Hint, window: Window, cells: Cells, *, blank: bool = False) -> Iterator[Hit]:
    """Types linked to the first text token, which is the classification marker, in hint order.

    ``blank`` takes every type, whatever the sign of its cells: the fallback's reading of the same answer.
    """
    marker = window.text_start
    rows, columns = cells.rows, cells.columns
    on_row, on_column = rows == marker, columns == marker
    span = cells.logits[on_row & on_column]
    span_logit = span[0] if len(span) else np.float32(-np.inf)
    if not blank and not span_logit > 0:
        return
    head_logits = _linked(hint, columns, on_row, cells.logits)
    tail_logits = _linked(hint, rows, on_column, cells.logits)
    probability = float(sigmoid(np.array([span_logit], dtype=np.float32))[0])
    heads, tails = sigmoid(head_logits).tolist(), sigmoid(tail_logits).tolist()
    chosen = range(hint.types) if blank else np.flatnonzero((head_logits > 0) & (tail_logits > 0)).tolist()
    for slot in chosen:
        yield Hit(marker, marker, slot, mean(probability, heads[slot], tails[slot]))


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logistic function in float32, without overflow; minus infinity gives a denormal that no score can show."""
    probabilities: FloatArray = np.float32(1) / (np.float32(1) + np.exp(np.minimum(-logits, np.float32(88))))
    return probabilities


def mean(span: float, head: float, tail: float) -> float:
    """Score of a fact: the sum and the division are float32, as the reference's."""
    total = np.float32(span) + np.float32(head) + np.float32(tail)
    return round(float(total / np.float32(3)), 4)


class _Links:
    """Text tokens linked to types: a bit mask of slots for each token, and the probability of each link."""

    def __init__(self, tokens: IntArray, slots: IntArray, probabilities: FloatArray) -> None:
        self.slots: dict[int, int] = {}
        self.at: dict[tuple[int, int], float] = {}
        linked = np.flatnonzero(slots >= 0)
        for token, slot, probability in zip(
            tokens[linked].tolist(), slots[linked].tolist(), probabilities[linked].tolist(), strict=True
        ):
            self.slots[token] = self.slots.get(token, 0) | 1 << slot
            self.at[token, slot] = probability


def _slots(hint: Hint, tokens: IntArray, valid: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> IntArray:
    """Slot of each token that is a ``[TYPE]`` of the hint where ``valid``, else -1."""
    inside = valid & (tokens >= 0) & (tokens < len(hint))
    slots: IntArray = np.where(inside, hint.slot_at[np.where(inside, tokens, 0)], np.int32(-1))
    return slots


def _linked(
    hint: Hint, tokens: IntArray, valid: np.ndarray[tuple[int], np.dtype[np.bool_]], logits: FloatArray
) -> FloatArray:
    """Logit of the marker's link with each type, float32[T]; minus infinity where the answer has no such cell."""
    slots = _slots(hint, tokens, valid)
    found = slots >= 0
    linked = np.full(hint.types, -np.inf, dtype=np.float32)
    linked[slots[found]] = logits[found]
    return linked
