"""Extraction: spans of types, level by level (docs/extraction.md, sections 10 and 11.1).

``SpanSearch`` runs one extraction task; ``span_hits`` and ``marker_hits`` read one window's cells, for it and for
classification.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from consumer.extraction.prompts import MAX_PROMPT_CHARS, Found, Parent
from consumer.extraction.task import Fact
from consumer.extraction.window import Level, Search, text_prompt

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from consumer.extraction.prompts import Hint, IntArray
    from consumer.extraction.task import Path
    from consumer.extraction.window import Cells, FloatArray, View, Window

IMPLICIT = -1
"""Offset of the tokens of an implicit aspect: they stand in no text of the caller's."""


TOKEN_BYTES = 20
"""A token's id, twice where an aspect or a marker stands in front, its code points, and its text as the tokenizer reads
it."""

FACT_BYTES = 1000
"""A path, or a parent with its prompt, its key and what both are made of: measured, 600 to 900."""


@dataclass(slots=True, kw_only=True)
class SpanSearch(Search):
    """One extraction task on one text. ``run`` yields each level once, and is sent the cells of its windows in order.

    A fact's span is not held but for the implicit aspect's: ``span_of`` reads it from the text.
    """

    aspect: str | None
    """The implicit aspect, as it stands in prompts. Its tokens have IMPLICIT offsets."""
    keep_duplicates: bool = False
    final_sep: bool = False
    paths: list[tuple[Found, ...]] = field(default_factory=list)
    parents: list[Parent] = field(default_factory=list)
    """What was found on the level under way, and has types below it."""
    _above: list[Parent] = field(default_factory=list)
    """The parents of the level under way. Kept, since ``_seen`` has their ids."""
    _seen: set[tuple[int, str, int, int]] = field(default_factory=set)

    def run(self) -> Generator[Level | None, Cells, None]:
        """Raises BadInput ``TooManyModelCalls``."""
        hints = self.plan_first()
        while hints.lengths:
            level = Level(self, hints, self.encoded)
            asked: Level | None = level
            self._above, self.parents, self._seen, is_open = self.parents, [], set(), True
            for number in range(len(level)):
                cells = yield asked
                asked = None
                if is_open:
                    is_open = self._read(level.view(number), cells)
                del cells  # or it would be held until the next answer comes
                level.passed(number)
            hints = self.plan(self.parents, len(self.encoded.ids))

    @property
    def held_bytes(self) -> int:
        """About how much it holds beside the windows: tokens, and what was found."""
        return TOKEN_BYTES * len(self.encoded.ids) + FACT_BYTES * (len(self.paths) + len(self._seen) + len(self._above))

    def facts(self) -> tuple[Path, ...]:
        """What is reported of the paths found."""
        return tuple(
            tuple(
                Fact(found.type, self.span_of(found), found.start, found.end, found.score)
                if found.start != IMPLICIT
                else Fact(found.type, None, None, None, found.score)
                for found in path
            )
            for path in self.paths
            if self.threshold is None or sum(found.score for found in path) / len(path) >= self.threshold
        )

    def span_of(self, found: Found) -> str:
        """The text of a fact."""
        return self.encoded.text[found.start : found.end] if found.start != IMPLICIT else found.span

    def _read(self, view: View, cells: Cells) -> bool:
        """Collect a window's paths and parents of the next level; False when the level takes no more."""
        parents, seen = self.parents, self._seen
        for hit in span_hits(view.chunk.hint, view, cells, final_sep=self.final_sep):
            parent, name, children = view.chunk.owners[hit.slot]
            start, end = view.characters(hit.first, hit.last)
            held = ""
            if start == IMPLICIT:
                if end != IMPLICIT or self.aspect is None:
                    self.notes.crossed_aspect += 1
                    continue
                held = self.aspect
            key = (id(parent), name, start, end)
            repeated = key in seen
            if repeated and not self.keep_duplicates:
                continue
            if self.cap is not None and max(len(seen), len(self.paths)) >= self.cap:
                self.notes.capped_at = self.cap
                return False
            seen.add(key)
            path = (*parent.facts, Found(name, held, start, end, hit.score))
            if children and not repeated:
                span = held or view.text[start : min(end, start + MAX_PROMPT_CHARS + 1)]
                parents.append(Parent(path, text_prompt(parent, name, span), children))
            types = (*(above.type.strip() for above in parent.facts), name)
            if types in self.legal if self.legal is not None else not children:
                self.paths.append(path)
        return True


class Hit(NamedTuple):
    """Tokens ``first`` to ``last`` of a window are a span of the hint's type number ``slot``."""

    first: int
    last: int
    slot: int
    score: float
    """Mean of the sigmoids of span, head and tail cell in float32, rounded to 4 decimals."""


def span_hits(hint: Hint, window: Window | View, cells: Cells, *, final_sep: bool = False) -> Iterator[Hit]:
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
    head_masks, heads = _links(rows, _slots(hint, columns, from_text), probabilities)
    tail_masks, tails = _links(columns, _slots(hint, rows, to_text), probabilities)
    previous = (-1, -1)
    for first, last, probability in sorted(
        zip(rows[spans].tolist(), columns[spans].tolist(), probabilities[spans].tolist(), strict=True)
    ):
        common = head_masks.get(first, 0) & tail_masks.get(last, 0)
        if not common or (first, last) == previous:
            continue
        previous = (first, last)
        while common:
            slot = (common & -common).bit_length() - 1
            common &= common - 1
            yield Hit(first, last, slot, mean(probability, heads[first, slot], tails[last, slot]))


def marker_hits(hint: Hint, window: Window | View, cells: Cells, *, blank: bool = False) -> Iterator[Hit]:
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
    return np.float32(1) / (np.float32(1) + np.exp(np.minimum(-logits, np.float32(88))))


def mean(span: float, head: float, tail: float) -> float:
    """Score of a fact: the sum and the division are float32, as the reference's."""
    total = np.float32(span) + np.float32(head) + np.float32(tail)
    return round(float(total / np.float32(3)), 4)


def _links(
    tokens: IntArray, slots: IntArray, probabilities: FloatArray
) -> tuple[dict[int, int], dict[tuple[int, int], float]]:
    """Text tokens linked to types: a bit mask of slots for each token, and the probability of each link."""
    masks: dict[int, int] = {}
    links: dict[tuple[int, int], float] = {}
    linked = np.flatnonzero(slots >= 0)
    for token, slot, probability in zip(
        tokens[linked].tolist(), slots[linked].tolist(), probabilities[linked].tolist(), strict=True
    ):
        masks[token] = masks.get(token, 0) | 1 << slot
        links[token, slot] = probability
    return masks, links


def _slots(hint: Hint, tokens: IntArray, valid: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> IntArray:
    """Slot of each token that is a ``[TYPE]`` of the hint where ``valid``, else -1."""
    inside = valid & (tokens >= 0) & (tokens < len(hint.ids))
    return np.where(inside, hint.slot_at[np.where(inside, tokens, 0)], np.int32(-1))


def _linked(
    hint: Hint, tokens: IntArray, valid: np.ndarray[tuple[int], np.dtype[np.bool_]], logits: FloatArray
) -> FloatArray:
    """Logit of the marker's link with each type, float32[T]; minus infinity where the answer has no such cell."""
    slots = _slots(hint, tokens, valid)
    found = slots >= 0
    linked = np.full(hint.types, -np.inf, dtype=np.float32)
    linked[slots[found]] = logits[found]
    return linked
