"""Compatibility mode: what the reference does with marked texts, its harmful quirks mended or, on request, kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from consumer.events import BadInput
from consumer.extraction.engine import Extraction, ReferenceOutput
from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY, Parent
from consumer.extraction.spans import SpanSearch
from consumer.extraction.task import Branch, Fact, Notes, ReferenceCrash, encodable, legal_leaves
from consumer.extraction.voting import Election, Vote, selected
from consumer.extraction.windows import View, pieces, spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumer.extraction.engine import Engine
    from consumer.extraction.prompts import Chunk, PromptTokenizer
    from consumer.extraction.spans import LegalPaths
    from consumer.extraction.task import Path, SchemaTree
    from consumer.extraction.windows import Offsets, Prompting, WindowWriter


@dataclass(frozen=True, slots=True)
class Quirks:
    """What the reference does wrong and golden vectors of it show (numbers of the inference specification)."""

    edited_text: bool = False
    """Q5: a long classification text is edited at wrong places, and later chunks and levels read the edited text."""
    keep_duplicates: bool = False
    """Q2: report what the overlap of two windows holds twice."""
    final_sep: bool = False
    """Q3: take the final ``[SEP]`` for text, with offset (0, 0)."""
    expand_all: bool = True
    """In classification, look below facts that are not the marker. Costs calls, and can change what is reported."""


def start_reference(
    engine: Engine,
    text: str,
    schema: object,
    legal_paths: Iterable[Sequence[str]] | None = None,
    quirks: Quirks | None = None,
) -> Extraction:
    """Begin what the reference does with a text in which the caller put the markers, and with a raw schema.

    Nothing is validated but the budget of model calls. Raises ReferenceCrash where the reference raises before its
    first model call, and BadInput for a schema that is no tree of names.
    """
    quirks = quirks or Quirks()
    text = encodable(text)
    tree = _tree(schema)
    legal = legal_leaves(tree) if legal_paths is None else frozenset(map(tuple, legal_paths))
    root = Parent((), (), Branch(tree))
    if CLASSIFY in text or MULTICLASSIFY in text:
        return _classify(engine, text, root, legal, quirks)
    return _extract(engine, text, root, legal, quirks)


def _extract(engine: Engine, text: str, root: Parent, legal: LegalPaths, quirks: Quirks) -> Extraction:
    tokenizer, writer = engine.tokenizer, engine.writer
    prompting = engine.prompting(Notes(), overlap=engine.prompt_limits.stride_len, special=True)
    encoded = tokenizer.encode(text, special=True)
    search = SpanSearch(
        prompting=prompting,
        writer=writer,
        first=prompting.chunks([root]) if text else (),
        text=text,
        encoded=encoded,
        aspect=None,
        legal=legal,
        cap=None,
        notes=prompting.notes,
        odd=writer.opens_segments(encoded.ids),
        keep_duplicates=quirks.keep_duplicates,
        final_sep=quirks.final_sep,
    )

    def paths() -> tuple[Path, ...]:
        return tuple(tuple(Fact(*fact) for fact in path) for path in search.paths)

    def output() -> ReferenceOutput:
        return [
            [
                {
                    "type": fact.type if depth == len(path) - 1 else fact.type.strip(),
                    "span": fact.span,
                    "offset": [fact.start, fact.end],
                }
                for depth, fact in enumerate(path)
            ]
            for path in search.paths
        ]

    return Extraction(search.run(), paths, tuple, output)


def _classify(engine: Engine, text: str, root: Parent, legal: LegalPaths, quirks: Quirks) -> Extraction:
    tokenizer = engine.tokenizer
    prompting = engine.prompting(Notes(), overlap=0, special=True)
    single = CLASSIFY in text
    marker = CLASSIFY if single else MULTICLASSIFY
    token = tokenizer.classify if single else tokenizer.multiclassify
    election = Election(
        prompting=prompting,
        cutter=_InsertingCutter(prompting, engine.writer, tokenizer, marker, token, quirks.edited_text),
        first=prompting.chunks([root]),
        text=text,
        marker=marker,
        extend=spoken,
        single=single,
        legal=legal,
        cap=None,
        notes=prompting.notes,
        read_all_spans=True,
        expand_all=quirks.expand_all,
    )

    def votes() -> list[Vote]:
        chosen = selected(election.votes, single=single, threshold=None)
        if quirks.keep_duplicates:
            return chosen
        return list({vote.types: vote for vote in reversed(chosen)}.values())[::-1]

    def paths() -> tuple[Path, ...]:
        return tuple(
            tuple(Fact(kind, None, None, None, score) for kind, score in zip(vote.types, vote.scores, strict=True))
            for vote in votes()
        )

    def output() -> ReferenceOutput:
        if election.votes and single and MULTICLASSIFY in text:
            raise ReferenceCrash("KeyError: 'confidence'")  # its single-label selection takes what the other one needs
        return [[{"type": kind, "span": marker, "offset": [0, len(marker)]} for kind in vote.types] for vote in votes()]

    return Extraction(election.run(), paths, tuple, output)


@dataclass(frozen=True, slots=True, eq=False)
class _InsertingCutter:
    """Inserts the marker where a window of the given text does not begin with it by itself."""

    prompting: Prompting
    writer: WindowWriter
    tokenizer: PromptTokenizer
    marker: str
    token: int
    edit: bool

    def tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text, special=True).ids)

    def cut(self, chunks: Sequence[Chunk], text: str) -> tuple[list[View], str]:
        views: list[View] = []
        for chunk in chunks:
            cut, edited = self._cut(chunk, text)
            views += cut
            if self.edit:
                text = edited
        return views, text

    def _cut(self, chunk: Chunk, text: str) -> tuple[list[View], str]:
        encoded = self.tokenizer.encode(text, special=True)
        odd = self.writer.opens_segments(encoded.ids)
        room = self.prompting.room(len(chunk.hint))
        ranges = list(pieces(len(encoded.ids), room, room))
        inserts = [encoded.offsets[start][0] for start, _ in ranges[1:]]
        working = text if self.edit else _inserted(text, self.marker, inserts)
        views = []
        for number, (start, end) in enumerate(ranges):
            ids, offsets = encoded.ids[start:end], encoded.offsets[start:end]
            if number:
                insert = inserts[number - 1]
                if self.edit:
                    working = working[:insert] + self.marker + working[insert:]
                kept = len(ids) - 1 if self.edit else room - 1
                ids = np.concatenate((np.array([self.token], dtype=np.int32), ids[:kept]))
                offsets = self._shifted(offsets[:kept], insert, number)
            views.append(View(self.writer.write(chunk.hint, ids, odd=odd), chunk, working, offsets, number))
        return views, working

    def _shifted(self, offsets: Offsets, insert: int, number: int) -> Offsets:
        width = len(self.marker)
        shift = number * width
        return [(insert + shift - width, insert + shift), *((start + shift, end + shift) for start, end in offsets)]


def _inserted(text: str, marker: str, at: Sequence[int]) -> str:
    bounds = [0, *at, len(text)]
    return marker.join(text[start:end] for start, end in pairwise(bounds))


def _tree(raw: object) -> SchemaTree:
    """A schema as it is, names untouched. Any depth: nothing here recurses. Raises BadInput ``InvalidSchema``."""
    if isinstance(raw, str | bytes):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadInput("validate", "InvalidSchema", "the schema is not JSON that can be read") from None
    if not isinstance(raw, Mapping):
        raise BadInput("validate", "InvalidSchema", "the schema is not an object of type names")
    root: dict[str, Any] = {}
    stack: list[tuple[Mapping[Any, Any], dict[str, Any]]] = [(raw, root)]
    while stack:
        source, target = stack.pop()
        for name, children in source.items():
            if not isinstance(name, str) or not (children is None or isinstance(children, Mapping)):
                raise BadInput("validate", "InvalidSchema", "the schema holds something else than names and objects")
            below: dict[str, Any] | None = None
            if children:
                below = {}
                stack.append((children, below))
            target[encodable(name)] = below
    return root
