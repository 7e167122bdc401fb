"""Classification: the windows of a text vote for types (docs/extraction.md, section 11.2).

Each window begins with a marker token, which is linked to types as a span would be. ``Classification`` runs one task:
it reads these links level by level, counts votes over windows, and falls back to the best guess when nothing is
positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from consumer.extraction.hint import Found, Parent
from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW
from consumer.extraction.spans import FACT_BYTES, TOKEN_BYTES, marker_hits, span_hits
from consumer.extraction.task import Fact
from consumer.extraction.window import Cells, Level, Search, marker_prompt, piece_at, text_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from consumer.extraction.hint import Chunk
    from consumer.extraction.prompts import Encoded, IntArray
    from consumer.extraction.spans import Hit
    from consumer.extraction.task import Path
    from consumer.extraction.window import Hints, View

MULTI_CUT = 0.9
"""Mean score above which the reference reports a path of a multi-label task."""

Cut: TypeAlias = "Callable[[Classification, Hints, Encoded], tuple[Level, Encoded]]"
"""Hints and text -> the windows of a level, and the text that the next level is cut from."""

Scores = dict[tuple[str, ...], list[tuple[float, ...]]]
"""Path of types -> the scores of its elements, once for each window that voted for it."""


MARKER_BYTES = 3500
"""At most what the fallback needs of an answer: the marker's cells with 126 types."""

SCORE_BYTES = 120
"""What one window said about one type."""


class Vote(NamedTuple):
    """A path of types and the score of each of its elements, not rounded."""

    types: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


@dataclass(slots=True, kw_only=True)
class Classification(Search):
    """One classification task on one text. ``run`` yields each level once, and is sent its windows' cells in order.

    Windows do not overlap and each start with the marker; only the marker can be read in their answers. ``encoded``
    begins with the marker's own token.
    """

    marker: str
    token: int | None
    """The marker's id: windows begin with it, and it is the span in the prompts of deeper levels.

    None in compatibility mode: the marker is looked for wherever it is found, and its literal stands in prompts.
    """
    single: bool
    cut: Cut | None = None
    """How compatibility mode cuts its windows; None for ``piece``."""
    expand_all: bool = False
    """Also look below facts that are not the marker, as the reference does."""
    votes: list[Vote] = field(default_factory=list)

    level: int = 0
    """Levels that were read so far."""
    _kept: list[Cells] | None = None
    """Answers of level 0, for the fallback, while nothing has a vote."""
    _parents: list[Parent] = field(default_factory=list)
    _scored: int = 0

    def run(self) -> Generator[Level | None, Cells, None]:
        """Raises BadInput ``TooManyModelCalls``."""
        self._kept = []
        yield from self._pass(*self._cut(self.plan_first(), self.encoded))
        if not self.votes and self._kept:
            # The fallback reads level 0 once more: what it would send is the same, and the answers are at hand.
            answers, self._kept = self._kept, None
            yield from self._pass(*self._cut(self.hints_of_first(), self.encoded), answers)
            self.notes.fallback = bool(self.votes)

    def piece(self, encoded: Encoded, hint_length: int, number: int) -> tuple[IntArray, IntArray]:
        """As in Search. As in the reference, a window that is full without the marker loses its last token to it."""
        capacity = self.capacity(hint_length)
        ids = encoded.ids
        start, end = piece_at(number, len(ids), capacity, capacity)
        piece = np.concatenate((ids[:1], ids[start:end])) if start else ids[:end]
        return piece[:capacity], encoded.offsets

    @property
    def held_bytes(self) -> int:
        """About how much it holds beside the windows: tokens, votes, and answers of level 0."""
        kept = MARKER_BYTES * len(self._kept or ())
        found = FACT_BYTES * (len(self.votes) + len(self._parents)) + SCORE_BYTES * self._scored
        return TOKEN_BYTES * len(self.encoded.ids) + found + kept

    def facts(self) -> tuple[Path, ...]:
        """What is reported of the votes, scores rounded to 4 decimals. The first of several equal paths counts."""
        first: dict[tuple[str, ...], Vote] = {}
        for vote in selected(self.votes, single=self.single, threshold=self.threshold):
            first.setdefault(vote.types, vote)
        return tuple(
            tuple(
                Fact(kind, None, None, None, round(score, 4))
                for kind, score in zip(vote.types, vote.scores, strict=True)
            )
            for vote in first.values()
        )

    def _cut(self, hints: Hints, encoded: Encoded) -> tuple[Level, Encoded]:
        return (Level(self, hints, encoded), encoded) if self.cut is None else self.cut(self, hints, encoded)

    def _pass(
        self, level: Level, encoded: Encoded, answers: Sequence[Cells] | None = None
    ) -> Generator[Level | None, Cells, None]:
        """Collect votes level by level. ``answers`` are those of the first one, for the fallback to read it blank."""
        blank = answers is not None
        while len(level):
            parents: list[Parent] = []
            self._parents = parents
            candidates: list[Vote] = []
            scores: Scores = {}
            chunk: Chunk | None = None
            asked: Level | None = level
            for number in range(len(level)):
                if answers is None:
                    cells = yield asked
                    asked = None
                else:
                    cells = answers[number]
                view = level.view(number)
                if self._kept is not None and not self.level:
                    self._kept.append(cells if len(cells.rows) <= MAX_CELLS_PER_WINDOW else _of_marker(view, cells))
                if view.chunk is not chunk:
                    self._close(scores, candidates)
                    chunk, scores = view.chunk, {}
                self._read(view, cells, scores, parents, blank=blank)
                del cells  # or it would be held until the next answer comes
                level.passed(number)
            self._close(scores, candidates)
            if candidates:
                self._add([max(candidates, key=lambda vote: sum(vote.scores))])
            answers = None
            self.level += 1
            level, encoded = self._cut(self.plan(parents, len(encoded.ids)), encoded)

    def _read(self, view: View, cells: Cells, scores: Scores, parents: list[Parent], *, blank: bool) -> None:
        """Collect a window's votes and parents of the next level."""
        if self.token is None and not blank:
            for hit in span_hits(view.chunk.hint, view, cells):
                self._count(view, hit, view.characters(hit.first, hit.last), scores, parents)
            return
        place = view.characters(view.text_start, view.text_start)
        for hit in marker_hits(view.chunk.hint, view, cells, blank=blank):
            self._count(view, hit, place, scores, parents)

    def _close(self, scores: Scores, candidates: list[Vote]) -> None:
        """All windows of a hint were read."""
        if self.single:
            candidates += _candidate(scores)
        else:
            self._add(Vote(types, occurrences[0]) for types, occurrences in scores.items())
        self._scored = 0
        if self.votes:
            self._kept = None

    def _count(self, view: View, hit: Hit, place: tuple[int, int], scores: Scores, parents: list[Parent]) -> None:
        """``place``: the code points of the hit."""
        parent, name, children = view.chunk.owners[hit.slot]
        start, end = place
        span = view.text[start:end]
        is_marker = span == self.marker
        # One parent for each window that found it, as in the reference (Q24): no two of them are the same.
        if children and (is_marker or self.expand_all):
            if self.cap is not None and len(parents) >= self.cap:
                self.notes.capped_at = self.cap
            else:
                below = (
                    text_prompt(parent, name, span) if self.token is None else marker_prompt(parent, name, self.token)
                )
                parents.append(Parent((*parent.facts, Found(name, span, start, end, hit.score)), below, children))
        if not is_marker:
            return
        marked = [above for above in parent.facts if above.span == self.marker]
        types = (*[above.type.strip() for above in marked], name)
        if types in self.legal if self.legal is not None else not children:
            known = scores.setdefault(types, [])
            if self.single or not known:  # of the others only the first is used
                known.append((*[above.score for above in marked], hit.score))
                self._scored += 1

    def _add(self, votes: Iterable[Vote]) -> None:
        for vote in votes:
            if self.cap is not None and len(self.votes) >= self.cap:
                self.notes.capped_at = self.cap
                return
            self.votes.append(vote)


def selected(votes: Sequence[Vote], *, single: bool, threshold: float | None) -> list[Vote]:
    """What is reported: the best path of a single-label task if it reaches ``threshold``; of a multi-label task every
    path that reaches it, or the best one. Without a threshold multi-label paths have to exceed MULTI_CUT.
    """
    best = [max(votes, key=lambda vote: vote.mean)] if votes else []
    if single:
        return [vote for vote in best if threshold is None or vote.mean >= threshold]
    if threshold is None:
        return [vote for vote in votes if vote.mean > MULTI_CUT] or best
    return [vote for vote in votes if vote.mean >= threshold] or best


def _candidate(scores: Scores) -> list[Vote]:
    """The chunk's candidate: a lone type with the scores of its first window, else the best mean over the windows."""
    if len(scores) < 2:
        return [Vote(types, occurrences[0]) for types, occurrences in scores.items()]
    averaged = [
        Vote(
            types,
            occurrences[0]
            if len(occurrences) == 1
            else tuple(sum(column) / len(column) for column in zip(*occurrences, strict=True)),
        )
        for types, occurrences in scores.items()
    ]
    return [max(averaged, key=lambda vote: sum(vote.scores))]


def _of_marker(view: View, cells: Cells) -> Cells:
    """The marker's own cell and those of it with types, which stand in front of it, copied."""
    marker = view.text_start
    kept = np.where(cells.rows == marker, cells.columns, cells.rows) <= marker
    kept &= (cells.rows == marker) | (cells.columns == marker)
    return Cells(cells.rows[kept], cells.columns[kept], cells.logits[kept])
