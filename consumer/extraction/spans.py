"""Extraction: spans of types, level by level (specification section 11.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.extraction.decode import span_hits
from consumer.extraction.hints import Found, Parent
from consumer.extraction.prompting import spoken
from consumer.extraction.windows import overlapping

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from consumer.extraction.decode import Hit
    from consumer.extraction.hints import Chunk, Owner
    from consumer.extraction.notes import Notes
    from consumer.extraction.prompting import Prompting
    from consumer.extraction.tokenizer import Encoded
    from consumer.extraction.window import Cells
    from consumer.extraction.windows import View, WindowWriter

IMPLICIT = -1
"""Offset of the tokens of an implicit aspect: they stand in no text of the caller's."""

FoundPath = tuple[Found, ...]
LegalPaths = frozenset[tuple[str, ...]]


@dataclass(slots=True)
class SpanSearch:
    """One extraction task on one text. ``run`` yields the views of a level and is sent their cells."""

    prompting: Prompting
    writer: WindowWriter
    first: Sequence[Chunk]
    """Level 0, ready made."""
    text: str
    encoded: Encoded
    """Tokens of the text, those of the implicit aspect in front with IMPLICIT offsets."""
    aspect: str | None
    legal: LegalPaths | None
    """Paths that may be reported; None for those that end in a leaf."""
    cap: int | None
    notes: Notes
    odd: bool = False
    """The text holds marker tokens that open segments."""
    keep_duplicates: bool = False
    final_sep: bool = False
    paths: list[FoundPath] = field(default_factory=list)

    def run(self) -> Generator[list[View], Sequence[Cells], None]:
        """Raises BadInput ``TooManyModelCalls``."""
        tokens = len(self.encoded.ids)
        self.prompting.afford(self.first, tokens)
        chunks = self.first
        while chunks:
            views = [view for chunk in chunks for view in self._cut(chunk)]
            answers = yield views
            chunks = self.prompting.affordable(self._read(views, answers), tokens)

    def _cut(self, chunk: Chunk) -> list[View]:
        room = self.prompting.room(len(chunk.hint))
        return overlapping(chunk, self.encoded, self.text, room, self.prompting.overlap, self.writer, odd=self.odd)

    def _read(self, views: Sequence[View], answers: Sequence[Cells]) -> list[Parent]:
        """Collect this level's paths; returns the parents of the next level."""
        parents: list[Parent] = []
        seen: set[tuple[int, int, int, int]] = set()
        for view, cells in zip(views, answers, strict=True):
            for hit in span_hits(view.chunk.hint, view.window, cells, final_sep=self.final_sep):
                owner = view.chunk.owners[hit.slot]
                fact = self._fact(view, hit, owner.name)
                if fact is None:
                    continue
                key = (id(owner.parent), owner.number, fact.start, fact.end)
                repeated = key in seen
                if repeated and not self.keep_duplicates:
                    continue
                if self._full(len(seen)):
                    return parents
                seen.add(key)
                if not repeated and (child := owner.child) is not None:
                    prompt = spoken(owner.parent, fact.type, fact.span)
                    parents.append(Parent((*owner.parent.facts, fact), prompt, child))
                if self._is_legal(owner):
                    self.paths.append((*owner.parent.facts, fact))
        return parents

    def _fact(self, view: View, hit: Hit, name: str) -> Found | None:
        start, end = view.characters(hit.first, hit.last)
        if start != IMPLICIT:
            return Found(name, view.text[start:end], start, end, hit.score)
        if end == IMPLICIT and self.aspect is not None:
            return Found(name, self.aspect, IMPLICIT, IMPLICIT, hit.score)
        self.notes.crossed_aspect += 1
        return None

    def _full(self, seen: int) -> bool:
        if self.cap is None or (seen < self.cap and len(self.paths) < self.cap):
            return False
        self.notes.capped_at = self.cap
        return True

    def _is_legal(self, owner: Owner) -> bool:
        if self.legal is None:
            return owner.child is None
        return (*(fact.type.strip() for fact in owner.parent.facts), owner.name) in self.legal
