"""Classification: windows vote for types through their marker (specification section 11.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from consumer.extraction.prompts import Found, Parent
from consumer.extraction.spans import marker_hits, span_hits
from consumer.extraction.windows import View, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from consumer.extraction.prompts import Chunk, Prompt
    from consumer.extraction.spans import Hit, LegalPaths
    from consumer.extraction.task import Notes
    from consumer.extraction.window import Cells, IntArray
    from consumer.extraction.windows import Prompting, WindowWriter

MULTI_CUT = 0.9
"""Mean score above which the reference reports a path of a multi-label task."""


class Vote(NamedTuple):
    """A path of types and the score of each of its elements, not rounded."""

    types: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


class Cutter(Protocol):
    """Cuts the text of a classification into windows."""

    def tokens(self, text: str) -> int:
        """Text tokens, the marker included."""
        ...

    def cut(self, chunks: Sequence[Chunk], text: str) -> tuple[list[View], str]:
        """All windows of a level, and the text that the next level is cut from."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MarkedCutter:
    """Windows do not overlap and each starts with the marker; only the marker can be read in their answers.

    As in the reference, a window that is full without it loses its last token to the marker.
    """

    prompting: Prompting
    writer: WindowWriter
    marker: str
    ids: IntArray
    """Tokens of the text behind the marker's own."""

    def tokens(self, text: str) -> int:  # noqa: ARG002 - production never edits the text
        return len(self.ids)

    def cut(self, chunks: Sequence[Chunk], text: str) -> tuple[list[View], str]:
        offsets = [(0, len(self.marker))]
        views = []
        for chunk in chunks:
            room = self.prompting.room(len(chunk.hint))
            for number, (start, end) in enumerate(pieces(len(self.ids), room, room)):
                piece = np.concatenate((self.ids[:1], self.ids[start:end]))[:room] if number else self.ids[:end]
                views.append(View(self.writer.write(chunk.hint, piece), chunk, self.marker, offsets, number))
        return views, text


@dataclass(slots=True)
class Election:
    """One classification task on one text. ``run`` yields the views of a level and is sent their cells."""

    prompting: Prompting
    cutter: Cutter
    first: Sequence[Chunk]
    text: str
    marker: str
    extend: Callable[[Parent, str, str], Prompt]
    """Prompt of a parent's fact, from its type and span."""
    single: bool
    legal: LegalPaths | None
    """Paths that may be reported; None for those that end in a leaf."""
    cap: int | None
    notes: Notes
    read_all_spans: bool = False
    """Look for the marker wherever it is found; otherwise only at the front of each window, where it was put."""
    expand_all: bool = False
    """Also look below facts that are not the marker, as the reference does."""
    votes: list[Vote] = field(default_factory=list)

    def run(self) -> Generator[list[View], Sequence[Cells], None]:
        """Raises BadInput ``TooManyModelCalls``."""
        self.prompting.afford(self.first, self.cutter.tokens(self.text))
        views, text = self.cutter.cut(self.first, self.text)
        if not views:
            return
        answers = yield views
        yield from self._pass(views, answers, text, blank=False)
        if not self.votes:
            # The fallback asks level 0 the same questions again: the answers are at hand.
            yield from self._pass(views, answers, text, blank=True)
            self.notes.fallback = bool(self.votes)

    def _pass(
        self, views: list[View], answers: Sequence[Cells], text: str, *, blank: bool
    ) -> Generator[list[View], Sequence[Cells], None]:
        while True:
            parents = self._read(views, answers, blank=blank)
            chunks = self.prompting.affordable(parents, self.cutter.tokens(text)) if parents else []
            if not chunks:
                return
            views, text = self.cutter.cut(chunks, text)
            answers = yield views

    def _read(self, views: Sequence[View], answers: Sequence[Cells], *, blank: bool) -> list[Parent]:
        """Collect this level's votes; returns the parents of the next level."""
        parents: list[Parent] = []
        candidates: list[Vote] = []
        for _, pairs in groupby(zip(views, answers, strict=True), key=lambda pair: id(pair[0].chunk)):
            ballots: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
            for view, cells in pairs:
                for hit in self._hits(view, cells, blank=blank):
                    self._count(view, hit, ballots, parents)
            if self.single:
                candidates += _winner(ballots)
            else:
                self._elect(Vote(types, occurrences[0]) for types, occurrences in ballots.items())
        if candidates:
            self._elect([max(candidates, key=lambda vote: sum(vote.scores))])
        return parents

    def _hits(self, view: View, cells: Cells, *, blank: bool) -> Iterator[Hit]:
        if self.read_all_spans and not blank:
            return span_hits(view.chunk.hint, view.window, cells)
        return marker_hits(view.chunk.hint, view.window, cells, blank=blank)

    def _count(
        self, view: View, hit: Hit, ballots: dict[tuple[str, ...], list[tuple[float, ...]]], parents: list[Parent]
    ) -> None:
        owner = view.chunk.owners[hit.slot]
        start, end = view.characters(hit.first, hit.last)
        fact = Found(owner.name, view.text[start:end], start, end, hit.score)
        is_marker = fact.span == self.marker
        child = owner.child
        # One parent for each window that found it, as in the reference (Q24): no two of them are the same.
        if child is not None and (is_marker or self.expand_all):
            if self.cap is not None and len(parents) >= self.cap:
                self.notes.capped_at = self.cap
            else:
                prompt = self.extend(owner.parent, fact.type, fact.span)
                parents.append(Parent((*owner.parent.facts, fact), prompt, child))
        if not is_marker:
            return
        elected = [above for above in owner.parent.facts if above.span == self.marker]
        types = (*(above.type.strip() for above in elected), owner.name)
        if types in self.legal if self.legal is not None else child is None:
            ballots.setdefault(types, []).append((*(above.score for above in elected), fact.score))

    def _elect(self, votes: Iterable[Vote]) -> None:
        for vote in votes:
            if self.cap is not None and len(self.votes) >= self.cap:
                self.notes.capped_at = self.cap
                return
            self.votes.append(vote)


def selected(votes: Sequence[Vote], *, single: bool, threshold: float | None) -> list[Vote]:
    """What is reported: the best path of a single-label task if it reaches ``threshold``; of a multi-label task every
    path that reaches it, or the best one. Without a threshold multi-label paths have to exceed MULTI_CUT.
    """
    if not votes:
        return []
    best = max(votes, key=lambda vote: vote.mean)
    if single:
        return [best] if threshold is None or best.mean >= threshold else []
    if threshold is None:
        kept = [vote for vote in votes if vote.mean > MULTI_CUT]
    else:
        kept = [vote for vote in votes if vote.mean >= threshold]
    return kept or [best]


def _winner(ballots: dict[tuple[str, ...], list[tuple[float, ...]]]) -> list[Vote]:
    """The chunk's candidate: a lone type with the scores of its first window, else the best mean over the windows."""
    if len(ballots) < 2:
        return [Vote(types, occurrences[0]) for types, occurrences in ballots.items()]
    averaged = [
        Vote(types, tuple(sum(column) / len(column) for column in zip(*occurrences, strict=True)))
        for types, occurrences in ballots.items()
    ]
    return [max(averaged, key=lambda vote: sum(vote.scores))]
