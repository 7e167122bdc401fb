"""The engine: starts extractions for one model's tokenizer and limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from consumer.events import BadInput
from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY, Chunk, Encoded, HintBuilder, Parent, PromptTokenizer
from consumer.extraction.spans import IMPLICIT, LegalPaths, SpanSearch
from consumer.extraction.task import INLINE, Branch, Extracted, Fact, Notes, encodable, parse_schema
from consumer.extraction.voting import Election, MarkedCutter, selected
from consumer.extraction.windows import Prompting, WindowWriter, stamped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from consumer.extraction.contract import PromptLimits
    from consumer.extraction.prompts import Found, Prompt
    from consumer.extraction.task import ExtractionLimits, Path, Task
    from consumer.extraction.window import Cells, Window
    from consumer.extraction.windows import View


# One task on one text as a state machine: windows out, cells in, until it is finished.

ReferenceOutput = list[list[dict[str, object]]]
"""Paths of ``{"type": str, "span": str, "offset": [start, end]}``, as the reference prints them."""


class Extraction:
    """Knows no clock and no IO. Made by ``Engine``; not safe to share between threads."""

    __slots__ = ("_paths", "_reference", "_run", "_warnings", "finished", "level", "model_calls", "windows")

    def __init__(
        self,
        run: Generator[list[View], Sequence[Cells], None],
        paths: Callable[[], tuple[Path, ...]],
        warnings: Callable[[], tuple[str, ...]],
        reference: Callable[[], ReferenceOutput] | None = None,
    ) -> None:
        """Lays out the first level. Raises BadInput ``TooManyModelCalls``; in compatibility mode ReferenceCrash."""
        self._run = run
        self._paths = paths
        self._warnings = warnings
        self._reference = reference
        self.windows: tuple[Window, ...] = ()
        """To be answered now, in one go and in this order. Empty when the extraction is finished or has failed."""
        self.finished = False
        """Whether ``result`` is there. Stays False when ``advance`` has raised."""
        self.level = 0
        """Rounds of windows that were answered so far."""
        self.model_calls = 0
        """Windows that were answered so far."""
        self._show(next(run, None))

    def advance(self, answers: Sequence[Cells]) -> None:
        """Take the cells of all current windows, in order, and lay out the next level.

        Raises ValueError when the number of answers is wrong, otherwise what the constructor raises.
        """
        if not self.windows:
            state = "finished" if self.finished else "failed"
            raise ValueError(f"the extraction is {state}: it has no windows to be answered")
        if len(answers) != len(self.windows):
            raise ValueError(f"{len(answers)} answers for {len(self.windows)} windows; answer all of them, in order")
        self.model_calls += len(answers)
        self.level += 1
        self.windows = ()
        try:
            views = self._run.send(answers)
        except StopIteration:
            views = None
        self._show(views)

    def result(self) -> Extracted:
        """The outcome. Raises RuntimeError before the last level is answered, and after a failure."""
        self._require_finished()
        return Extracted(self._paths(), self._warnings(), self.model_calls)

    def reference_output(self) -> ReferenceOutput:
        """What the reference's predict variant prints. Raises ReferenceCrash where it raises after its last model call.

        Raises RuntimeError before the last level is answered, and for extractions that ``Engine.start`` made.
        """
        self._require_finished()
        if self._reference is None:
            raise RuntimeError("only an extraction made by start_reference has a reference output")
        return self._reference()

    def _show(self, views: list[View] | None) -> None:
        self.windows = tuple(view.window for view in views or ())
        self.finished = views is None

    def _require_finished(self) -> None:
        if not self.finished:
            waiting = f"{len(self.windows)} windows are waiting for an answer; advance first"
            raise RuntimeError(waiting if self.windows else "the extraction has failed; it has no result")


_CACHED_TASKS = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Recipe:
    """What all events of a task share: the hints of level 0 above all."""

    chunks: tuple[Chunk, ...]
    skipped_types: tuple[str, ...]
    legal: LegalPaths | None
    aspect: tuple[int, ...]
    """Token ids of the implicit aspect."""


class Engine:
    """Pure: ``(text, task)`` to windows, and cells to facts. One for each model version; its caches are bounded."""

    def __init__(self, tokenizer: PromptTokenizer, prompt_limits: PromptLimits, limits: ExtractionLimits) -> None:
        """Raises ValueError for prompt limits that leave no room: every hint must hold a prefix with one type, and
        every window more text than its overlap.
        """
        _check(prompt_limits)
        self.tokenizer = tokenizer
        self.prompt_limits = prompt_limits
        self.limits = limits
        self._hints = HintBuilder(tokenizer, prompt_limits)
        self.writer = WindowWriter(tokenizer)
        self._cached_recipe = lru_cache(maxsize=_CACHED_TASKS)(self._recipe)

    def start(self, text: str, task: Task) -> Extraction:
        """Begin a task on a text. Marker literals in the text and in type names are ordinary text.

        Raises BadInput: stage ``validate`` with ``EmptyText``, ``TextTooLong``, ``InvalidSchema``, ``SchemaTooDeep``
        or ``SchemaTooWide``; stage ``extract`` with ``TooManyModelCalls``, which ``advance`` may raise as well.
        """
        if len(text) > self.limits.text_chars:
            what = f"the text has {len(text)} characters; at most {self.limits.text_chars} are allowed"
            raise BadInput("validate", "TextTooLong", what)
        text = encodable(text)
        encoded = self.tokenizer.encode(text)
        if not len(encoded.ids):
            what = f"the text has {len(text)} characters, and none that the tokenizer keeps; send some words"
            raise BadInput("validate", "EmptyText", what)
        recipe = self._recipe(task) if task.name == INLINE else self._cached_recipe(task)
        if task.kind == "extract":
            return self._extract(text, encoded, task, recipe)
        return self._classify(encoded, task, recipe)

    def _extract(self, text: str, encoded: Encoded, task: Task, recipe: _Recipe) -> Extraction:
        notes = Notes(dict.fromkeys(recipe.skipped_types))
        aspect = task.implicit_aspect if recipe.aspect else None
        if recipe.aspect:
            front = np.array(recipe.aspect, dtype=np.int32)
            offsets = [(IMPLICIT, IMPLICIT)] * len(front) + encoded.offsets
            encoded = Encoded(np.concatenate((front, encoded.ids)), offsets)
        search = SpanSearch(
            prompting=self.prompting(notes, overlap=self.prompt_limits.stride_len),
            writer=self.writer,
            first=recipe.chunks,
            text=text,
            encoded=encoded,
            aspect=encodable(aspect).strip() if aspect else None,
            legal=recipe.legal,
            cap=self.limits.facts,
            notes=notes,
        )
        return Extraction(search.run(), partial(_span_facts, search, task.threshold), self._warnings(notes))

    def _classify(self, encoded: Encoded, task: Task, recipe: _Recipe) -> Extraction:
        notes = Notes(dict.fromkeys(recipe.skipped_types))
        single = task.kind == "classify"
        marker = CLASSIFY if single else MULTICLASSIFY
        token = self.tokenizer.classify if single else self.tokenizer.multiclassify
        prompting = self.prompting(notes, overlap=0)
        ids = np.concatenate((np.array([token], dtype=np.int32), encoded.ids))

        def extend(parent: Parent, kind: str, _span: str) -> Prompt:
            return stamped(parent, kind, token)

        election = Election(
            prompting=prompting,
            cutter=MarkedCutter(prompting, self.writer, marker, ids),
            first=recipe.chunks,
            text="",
            marker=marker,
            extend=extend,
            single=single,
            legal=recipe.legal,
            cap=self.limits.facts,
            notes=notes,
        )
        return Extraction(election.run(), partial(_elected_facts, election, task.threshold), self._warnings(notes))

    def _recipe(self, task: Task) -> _Recipe:
        notes = Notes()
        root = Parent((), (), Branch(parse_schema(task.schema, self.limits)))
        legal = None
        if task.legal_paths is not None:
            legal = frozenset(tuple(encodable(name).strip() for name in path) for path in task.legal_paths)
        aspect = encodable(task.implicit_aspect or "")
        chunks = self.prompting(notes, overlap=0).chunks([root])
        return _Recipe(tuple(chunks), tuple(notes.skipped_types), legal, self.tokenizer.ids(aspect))

    def prompting(self, notes: Notes, *, overlap: int, special: bool = False) -> Prompting:
        """Lays out the levels of one extraction. ``overlap`` in tokens; ``special`` as in PromptTokenizer."""
        return Prompting(self._hints, self.prompt_limits, notes, self.limits.model_calls, special, overlap)

    def _warnings(self, notes: Notes) -> partial[tuple[str, ...]]:
        limits = self.prompt_limits
        return partial(notes.warnings, limits.type_max_len - 1, limits.prefix_max_len - 1)


def _span_facts(search: SpanSearch, threshold: float | None) -> tuple[Path, ...]:
    return tuple(
        tuple(_fact(found) for found in path)
        for path in search.paths
        if threshold is None or sum(found.score for found in path) / len(path) >= threshold
    )


def _fact(found: Found) -> Fact:
    if found.start == IMPLICIT:
        return Fact(found.type, None, None, None, found.score)
    return Fact(*found)


def _elected_facts(election: Election, threshold: float | None) -> tuple[Path, ...]:
    votes = selected(election.votes, single=election.single, threshold=threshold)
    unique = {vote.types: vote for vote in reversed(votes)}
    return tuple(
        tuple(
            Fact(kind, None, None, None, round(score, 4)) for kind, score in zip(vote.types, vote.scores, strict=True)
        )
        for vote in votes
        if unique[vote.types] is vote
    )


def _check(limits: PromptLimits) -> None:
    if limits.prefix_max_len + limits.type_max_len + 2 > limits.hint_max_len:
        raise ValueError(
            f"hint_max_len {limits.hint_max_len} cannot hold a prefix of {limits.prefix_max_len} and a type of "
            f"{limits.type_max_len} tokens; the model's bundle does not fit this version"
        )
    if limits.max_len - limits.hint_max_len - 1 <= limits.stride_len:
        raise ValueError(
            f"max_len {limits.max_len} leaves no text beside a hint of {limits.hint_max_len} tokens and an overlap of "
            f"{limits.stride_len}; the model's bundle does not fit this version"
        )
