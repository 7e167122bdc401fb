"""Compatibility mode: what the reference does with marked texts, without its harmful quirks unless they are asked for.

For ``rexstream extract --reference-output`` and the golden vectors. Texts hold their own markers, schemas are taken as
they are, and the output is the reference's. Quirks are numbered as in docs/extraction.md, section 15.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from consumer.events import BadInput, encodable
from consumer.extraction.engine import Extraction, ReferenceOutput
from consumer.extraction.hint import Parent
from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY, HintBuilder
from consumer.extraction.spans import SpanSearch
from consumer.extraction.task import Notes, ReferenceCrash, legal_leaves
from consumer.extraction.voting import Classification, selected
from consumer.extraction.window import Hints, Level, View, write_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumer.extraction.engine import Engine
    from consumer.extraction.prompts import Encoded, IntArray, PromptTokenizer
    from consumer.extraction.task import SchemaTree
    from consumer.extraction.window import LegalPaths, Window


@dataclass(frozen=True, slots=True)
class Quirks:
    """What the reference does wrong and golden vectors of it show (docs/extraction.md, section 15)."""

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
    root = Parent((), (), tree)
    if CLASSIFY in text or MULTICLASSIFY in text:
        return _classify(engine, text, root, legal, quirks)
    return _extract(engine, text, root, legal, quirks)


def _extract(engine: Engine, text: str, root: Parent, legal: LegalPaths, quirks: Quirks) -> Extraction:
    notes, builder = Notes(), HintBuilder(engine.tokenizer, engine.prompt_limits)
    encoded = engine.tokenizer.encode(text, special=True)
    search = SpanSearch(
        builder=builder,
        notes=notes,
        budget=engine.limits.model_calls,
        special=True,
        overlap=engine.prompt_limits.stride_len,
        first=builder.chunks([root], notes, special=True) if text else (),
        encoded=encoded,
        characters=len(text),
        aspect=None,
        legal=legal,
        cap=None,
        has_markers=_opens_segments(engine.tokenizer, encoded.ids),
        keep_duplicates=quirks.keep_duplicates,
        final_sep=quirks.final_sep,
    )

    def output() -> ReferenceOutput:
        return [
            [
                {
                    "type": fact.type if depth == len(path) - 1 else fact.type.strip(),
                    "span": search.span_of(fact),
                    "offset": [fact.start, fact.end],
                }
                for depth, fact in enumerate(path)
            ]
            for path in search.paths
        ]

    return Extraction(search, output)


def _classify(engine: Engine, text: str, root: Parent, legal: LegalPaths, quirks: Quirks) -> Extraction:
    notes, builder = Notes(), HintBuilder(engine.tokenizer, engine.prompt_limits)
    single = CLASSIFY in text
    marker = CLASSIFY if single else MULTICLASSIFY
    token = engine.tokenizer.classify if single else engine.tokenizer.multiclassify
    search = Classification(
        builder=builder,
        notes=notes,
        budget=engine.limits.model_calls,
        special=True,
        overlap=0,
        first=builder.chunks([root], notes, special=True),
        encoded=engine.tokenizer.encode(text, special=True),
        characters=len(text),
        marker=marker,
        token=None,
        single=single,
        legal=legal,
        cap=None,
        cut=partial(_inserted_windows, token, quirks.edited_text),
        expand_all=quirks.expand_all,
    )

    def output() -> ReferenceOutput:
        if search.votes and single and MULTICLASSIFY in text:
            raise ReferenceCrash("KeyError: 'confidence'")  # its single-label selection takes what the other one needs
        paths = [vote.types for vote in selected(search.votes, single=single, threshold=None)]
        if not quirks.keep_duplicates:
            paths = list(dict.fromkeys(reversed(paths)))[::-1]  # each keeps the place of its last vote
        return [[{"type": kind, "span": marker, "offset": [0, len(marker)]} for kind in path] for path in paths]

    return Extraction(search, output)


class _LaidOut(Level):
    """A level whose windows are there already: they depend on those before them."""

    def __init__(self, windows: list[Window], views: list[View]) -> None:
        self._windows, self._views = windows, views

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: Any) -> Any:
        return self._windows[number]

    def view(self, number: int) -> View:
        return self._views[number]

    def passed(self, number: int) -> None:
        """Nothing is dropped."""


def _inserted_windows(
    token: int, edit: bool, search: Classification, hints: Hints, encoded: Encoded
) -> tuple[Level, Encoded]:
    """Windows of a text that holds the marker itself: it is inserted in front of all windows but the first.

    ``edit`` inserts it at the reference's places, and cuts later chunks and levels from the edited text (Q5).
    """
    tokenizer, marker = search.builder.tokenizer, search.marker
    windows: list[Window] = []
    views: list[View] = []
    for chunk in hints.chunks:
        text, ids, offsets = encoded.text, encoded.ids, encoded.offsets
        has_markers = _opens_segments(tokenizer, ids)
        capacity = search.capacity(len(chunk.hint.ids))
        starts = range(0, capacity * search.windows(len(chunk.hint.ids), len(ids)), capacity)
        inserts = [int(offsets[start, 0]) for start in starts[1:]]
        if not edit:
            text = marker.join(text[start:end] for start, end in pairwise([0, *inserts, len(text)]))
        for number, start in enumerate(starts):
            piece, places = ids[start : start + capacity], offsets[start : start + capacity]
            if number:
                insert = inserts[number - 1]
                if edit:
                    text = text[:insert] + marker + text[insert:]
                # The reference drops the last token of every later window, also where the marker fits beside it.
                kept = len(piece) - 1 if edit else capacity - 1
                piece = np.concatenate((np.array([token], dtype=np.int32), piece[:kept]))
                shift = number * len(marker)
                own = np.array([[insert - len(marker), insert]], dtype=np.int32)
                places = np.concatenate((own, places[:kept])) + np.int32(shift)
            windows.append(write_window(tokenizer, chunk.hint, piece, has_markers=has_markers))
            views.append(View(chunk, text, places, windows[-1].length, windows[-1].text_start))
        if edit:
            encoded = tokenizer.encode(text, special=True)
    return _LaidOut(windows, views), encoded


def _opens_segments(tokenizer: PromptTokenizer, ids: IntArray) -> bool:
    return bool(np.isin(ids, (tokenizer.prefix, tokenizer.type)).any())


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
            if not isinstance(name, str) or not isinstance(children, Mapping | None):
                raise BadInput("validate", "InvalidSchema", "the schema holds something else than names and objects")
            below: dict[str, Any] = {}
            if children:
                stack.append((children, below))
            target[encodable(name)] = below
    return root
