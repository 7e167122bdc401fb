"""Extraction: spans of types, level by level (docs/extraction.md, sections 10 and 11.1).

``SpanSearch`` runs one extraction task; ``span_hits`` and ``marker_hits`` read one window's cells, for it and for
classification.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from consumer.extraction.hint import Found, Parent
from consumer.extraction.prompts import MAX_PROMPT_CHARS
from consumer.extraction.task import Fact
from consumer.extraction.window import Level, Search, text_prompt

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from consumer.extraction.hint import Hint
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
        while hints.ends:
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
        # Lists within: a generator takes twice as long.
        return tuple(
            [
                tuple(
                    [
                        Fact(found.type, self.span_of(found), found.start, found.end, found.score)
                        if found.start != IMPLICIT
                        else Fact(found.type, None, None, None, found.score)
                        for found in path
                    ]
                )
                for path in self.paths
                if self.threshold is None or sum(found.score for found in path) / len(path) >= self.threshold
            ]
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
            if self.legal is None:
                is_reported = not children
            else:
                is_reported = (*[above.type.strip() for above in parent.facts], name) in self.legal
            if is_reported:
                self.paths.append(path)
        return True


@dataclass(slots=True)
class Hit:
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
    if not len(cells.rows):
        return
    start = window.text_start
    end = window.length - (not final_sep)
    slot_at = hint.slot_at
    spans: list[tuple[int, int, float]] = []
    # Text tokens linked to types: a bit mask of slots for each token, and the logit of each link.
    head_masks: dict[int, int] = {}
    tail_masks: dict[int, int] = {}
    heads: dict[tuple[int, int], float] = {}
    tails: dict[tuple[int, int], float] = {}
    # In plain Python: of a window's few cells numpy's calls cost more than the work.
    for row, column, logit in zip(cells.rows.tolist(), cells.columns.tolist(), cells.logits.tolist(), strict=True):
        if not logit > 0:
            continue
        if start <= row < end:
            if start <= column < end:
                if row <= column:
                    spans.append((row, column, logit))
            elif 0 <= column < start and (slot := slot_at[column]) >= 0:
                head_masks[row] = head_masks.get(row, 0) | 1 << slot
                heads[row, slot] = logit
        elif start <= column < end and 0 <= row < start and (slot := slot_at[row]) >= 0:
            tail_masks[column] = tail_masks.get(column, 0) | 1 << slot
            tails[column, slot] = logit
    previous = (-1, -1)
    for first, last, logit in sorted(spans):
        common = head_masks.get(first, 0) & tail_masks.get(last, 0)
        if not common or (first, last) == previous:
            continue
        previous = (first, last)
        while common:
            slot = (common & -common).bit_length() - 1
            common &= common - 1
            yield Hit(first, last, slot, score(logit, heads[first, slot], tails[last, slot]))


def marker_hits(hint: Hint, window: Window | View, cells: Cells, *, blank: bool = False) -> Iterator[Hit]:
    """Types linked to the first text token, which is the classification marker, in hint order.

    ``blank`` takes every type, whatever the sign of its cells: the fallback's reading of the same answer.
    """
    marker, slot_at = window.text_start, hint.slot_at
    span_logit: float | None = None
    heads: dict[int, float] = {}
    tails: dict[int, float] = {}
    for row, column, logit in zip(cells.rows.tolist(), cells.columns.tolist(), cells.logits.tolist(), strict=True):
        if row == marker:
            if column == marker:
                span_logit = logit if span_logit is None else span_logit
            elif 0 <= column < marker and (slot := slot_at[column]) >= 0:
                heads[slot] = logit
        elif column == marker and 0 <= row < marker and (slot := slot_at[row]) >= 0:
            tails[slot] = logit
    absent = -math.inf
    if not blank:
        if span_logit is not None and span_logit > 0:
            for slot in sorted(slot for slot, head in heads.items() if head > 0 and tails.get(slot, absent) > 0):
                yield Hit(marker, marker, slot, score(span_logit, heads[slot], tails[slot]))
        return
    slots = range(hint.types)
    logits = [absent if span_logit is None else span_logit]
    logits += [heads.get(slot, absent) for slot in slots]
    logits += [tails.get(slot, absent) for slot in slots]
    probability, *links = sigmoid(np.array(logits, dtype=np.float32)).tolist()
    for slot, head, tail in zip(slots, links[: len(slots)], links[len(slots) :], strict=True):
        yield Hit(marker, marker, slot, mean(probability, head, tail))


def score(span: float, head: float, tail: float) -> float:
    """``mean`` of the sigmoids of three positive logits, which are float32; a sixth of the time.

    In double precision the mean is less than 1e-6 from that in float32, whose steps together are off by a few of its
    last digits (6e-8 each). So where it is farther than that from the middle between two scores, both are rounded to
    the same one; else numpy has to say.
    """
    exp = math.exp
    ten_thousandths = (1 / (1 + exp(-span)) + 1 / (1 + exp(-head)) + 1 / (1 + exp(-tail))) / 3 * 10_000
    nearest = round(ten_thousandths)
    if abs(ten_thousandths - nearest) < _SURE:
        return nearest / 10_000
    return mean(*sigmoid(np.array((span, head, tail), dtype=np.float32)).tolist())


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logistic function in float32, without overflow; minus infinity gives a denormal that no score can show."""
    # 1 / (1 + exp(min(-logits, 88))) in one array: of a few numbers numpy's own ways take three times as long.
    result = np.negative(logits)
    np.minimum(result, _MOST, out=result)
    np.exp(result, out=result)
    np.add(result, _ONE, out=result)
    return np.reciprocal(result, out=result)


_ONE, _MOST = np.array(1, np.float32), np.array(88, np.float32)
_FLOAT32 = struct.Struct("f")
_SURE = 0.5 - 1e-6 * 10_000


def mean(span: float, head: float, tail: float) -> float:
    """Score of a fact: the sum and the division are float32, as the reference's. All three are float32 already.

    Each step is taken in double precision and then rounded, which is the same: a double has more than twice the digits
    of a float32 and two more. numpy's own scalars take four times as long.
    """
    pack, unpack = _FLOAT32.pack, _FLOAT32.unpack
    (two,) = unpack(pack(span + head))
    (total,) = unpack(pack(two + tail))
    score: float = unpack(pack(total / 3))[0]
    return round(score, 4)
