"""Classification: the windows of a text vote for types (docs/extraction.md, section 11.2).

Each window begins with a marker token, which is linked to types as a span would be. ``Classification`` runs one task:
it reads these links level by level, counts votes over windows, and falls back to the best guess when nothing is
positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from consumer.extraction.prompts import Found, Parent
from consumer.extraction.spans import marker_hits, span_hits
from consumer.extraction.task import Fact
from consumer.extraction.window import Search, View, marker_prompt, text_prompt, write_window

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from consumer.extraction.prompts import Chunk, Encoded
    from consumer.extraction.spans import Hit
    from consumer.extraction.task import Path
    from consumer.extraction.window import Cells

MULTI_CUT = 0.9
"""Mean score above which the reference reports a path of a multi-label task."""

Cut: TypeAlias = "Callable[[Classification, Sequence[Chunk], Encoded], tuple[list[View], Encoded]]"
"""Chunks and text -> all windows of a level, and the text that the next level is cut from."""

Scores = dict[tuple[str, ...], list[tuple[float, ...]]]
"""Path of types -> the scores of its elements, once for each window that voted for it."""


def marked_windows(search: Classification, chunks: Sequence[Chunk], encoded: Encoded) -> tuple[list[View], Encoded]:
    """Windows that do not overlap and each start with the marker; only the marker can be read in their answers.

    ``encoded`` begins with the marker's own token. As in the reference, a window that is full without the marker loses
    its last token to it.
    """
    ids = encoded.ids
    views = []
    for chunk in chunks:
        capacity = search.capacity(len(chunk.hint.ids))
        for start, end in search.pieces(chunk, len(ids)):
            piece = np.concatenate((ids[:1], ids[start:end]))[:capacity] if start else ids[:end]
            window = write_window(search.builder.tokenizer, chunk.hint, piece)
            views.append(View(window, chunk, search.marker, [(0, len(search.marker))]))
    return views, encoded


class Vote(NamedTuple):
    """A path of types and the score of each of its elements, not rounded."""

    types: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


@dataclass(slots=True, kw_only=True)
class Classification(Search):
    """One classification task on one text. ``run`` yields the views of a level and is sent their cells."""

    marker: str
    token: int | None
    """The marker's id: windows begin with it, and it is the span in the prompts of deeper levels.

    None in compatibility mode: the marker is looked for wherever it is found, and its literal stands in prompts.
    """
    single: bool
    cut: Cut = marked_windows
    expand_all: bool = False
    """Also look below facts that are not the marker, as the reference does."""
    votes: list[Vote] = field(default_factory=list)

    def run(self) -> Generator[list[View], Sequence[Cells], None]:
        """Raises BadInput ``TooManyModelCalls``."""
        self.pay_first()
        views, encoded = self.cut(self, self.first, self.encoded)
        if not views:
            return
        answers = yield views
        yield from self._pass(views, answers, encoded, blank=False)
        if not self.votes:
            # The fallback reads level 0 once more: what it would send is the same, and the answers are at hand.
            yield from self._pass(views, answers, encoded, blank=True)
            self.notes.fallback = bool(self.votes)

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

    def _pass(
        self, views: list[View], answers: Sequence[Cells], encoded: Encoded, *, blank: bool
    ) -> Generator[list[View], Sequence[Cells], None]:
        while chunks := self.chunks(self._read(views, answers, blank=blank), len(encoded.ids)):
            views, encoded = self.cut(self, chunks, encoded)
            answers = yield views

    def _read(self, views: Sequence[View], answers: Sequence[Cells], *, blank: bool) -> list[Parent]:
        """Collect this level's votes; returns the parents of the next level."""
        parents: list[Parent] = []
        candidates: list[Vote] = []
        for _, pairs in groupby(zip(views, answers, strict=True), key=lambda pair: id(pair[0].chunk)):
            scores: Scores = {}
            for view, cells in pairs:
                if self.token is None and not blank:
                    hits = span_hits(view.chunk.hint, view.window, cells)
                else:
                    hits = marker_hits(view.chunk.hint, view.window, cells, blank=blank)
                for hit in hits:
                    self._count(view, hit, scores, parents)
            if self.single:
                candidates += _candidate(scores)
            else:
                self._add(Vote(types, occurrences[0]) for types, occurrences in scores.items())
        if candidates:
            self._add([max(candidates, key=lambda vote: sum(vote.scores))])
        return parents

    def _count(self, view: View, hit: Hit, scores: Scores, parents: list[Parent]) -> None:
        parent, name, children = view.chunk.owners[hit.slot]
        start, end = view.characters(hit.first, hit.last)
        fact = Found(name, view.text[start:end], start, end, hit.score)
        is_marker = fact.span == self.marker
        # One parent for each window that found it, as in the reference (Q24): no two of them are the same.
        if children and (is_marker or self.expand_all):
            if self.cap is not None and len(parents) >= self.cap:
                self.notes.capped_at = self.cap
            else:
                below = (
                    text_prompt(parent, name, fact.span)
                    if self.token is None
                    else marker_prompt(parent, name, self.token)
                )
                parents.append(Parent((*parent.facts, fact), below, children))
        if not is_marker:
            return
        marked = [above for above in parent.facts if above.span == self.marker]
        types = (*(above.type.strip() for above in marked), name)
        if types in self.legal if self.legal is not None else not children:
            scores.setdefault(types, []).append((*(above.score for above in marked), fact.score))

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
        Vote(types, tuple(sum(column) / len(column) for column in zip(*occurrences, strict=True)))
        for types, occurrences in scores.items()
    ]
    return [max(averaged, key=lambda vote: sum(vote.scores))]
