"""The engine: one task on one text as a state machine, windows out and cells in. No clock, no IO.

``Engine`` holds what all extractions of a model version share (tokenizer, limits, caches); the worker, the offline
commands and compatibility mode (``reference``) start an ``Extraction`` with it and answer its windows until it is
finished.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from consumer.events import BadInput, encodable
from consumer.extraction.hint import Chunk, Parent
from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY, Encoded, HintBuilder, HintCache, PromptTokenizer
from consumer.extraction.spans import IMPLICIT, SpanSearch
from consumer.extraction.task import INLINE, Extracted, Notes, Task, parse_schema, refuse_long_names, shown
from consumer.extraction.voting import Classification

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.extraction.prompts import PromptLimits
    from consumer.extraction.task import ExtractionLimits, Path
    from consumer.extraction.window import Cells, LegalPaths, Level, Search, Window

ReferenceOutput = list[list[dict[str, object]]]
"""Paths of ``{"type": str, "span": str, "offset": [start, end]}``, as the reference prints them."""

_CACHED_TASKS = 256
_INLINE_HINTS = 256


class Extraction:
    """One task on one text. Made by ``Engine.start`` or ``start_reference``; not safe to share between threads."""

    __slots__ = (
        "_left",
        "_reference",
        "_result_bytes",
        "_run",
        "_search",
        "finished",
        "level",
        "model_calls",
        "windows",
    )

    def __init__(
        self,
        search: SpanSearch | Classification,
        reference: Callable[[], ReferenceOutput] | None = None,
        result_bytes: int | None = None,
    ) -> None:
        """Plans the first level. Raises BadInput ``TooManyModelCalls``; in compatibility mode ReferenceCrash.

        ``result_bytes`` as in ExtractionLimits; None for no bound.
        """
        self._search = search
        self._result_bytes = result_bytes
        self._run = search.run()
        self._reference = reference
        self._left = 0
        self.windows: Sequence[Window] = ()
        """The level under way, to be answered in this order. Each is laid out when it is asked for, so ask once.

        Empty when the extraction is finished or has failed."""
        self.finished = False
        """Whether ``result`` is there. Stays False when ``read`` or ``advance`` has raised."""
        self.level = 0
        """Levels whose windows were answered so far."""
        self.model_calls = 0
        """Windows that were answered so far."""
        self._show(next(self._run, None))

    @property
    def held_bytes(self) -> int:
        """About how much memory it holds beside windows and answers: tokens, and what was found."""
        return self._search.held_bytes

    def read(self, answer: Cells) -> None:
        """Take the cells of the first window that has none; after the last of a level, plan the next.

        Raises ValueError when no window is left, otherwise what the constructor raises.
        """
        if not self._left:
            self._require_windows()
        self.model_calls += 1
        self._left -= 1
        if self._left:
            self._run.send(answer)
            return
        self.level += 1
        self.windows = ()
        try:
            level = self._run.send(answer)
        except StopIteration:
            level = None
        self._show(level)

    def advance(self, answers: Sequence[Cells]) -> None:
        """Take the cells of all windows of the level, in order, and plan the next level.

        Raises ValueError when the number of answers is wrong, otherwise what ``read`` raises.
        """
        self._require_windows()
        if len(answers) != len(self.windows):
            raise ValueError(f"{len(answers)} answers for {len(self.windows)} windows; answer all of them, in order")
        for answer in answers:
            self.read(answer)

    def result(self) -> Extracted:
        """The outcome. Raises RuntimeError before the last level is answered, and after a failure."""
        self._require_finished()
        paths, warnings, most = self._search.facts(), _warnings(self._search), self._result_bytes
        if most is not None and (kept := _within(paths, most)) < len(paths):
            warnings = (*warnings, f"result-capped: over {most} bytes of facts; {len(paths) - kept} paths were dropped")
            paths = paths[:kept]
        return Extracted(paths, warnings, self.model_calls)

    def reference_output(self) -> ReferenceOutput:
        """What the reference's predict variant prints. Raises ReferenceCrash where it raises after its last model call.

        Raises RuntimeError before the last level is answered, and for extractions that ``Engine.start`` made.
        """
        self._require_finished()
        if self._reference is None:
            raise RuntimeError("only an extraction made by start_reference has a reference output")
        return self._reference()

    def _show(self, level: Level | None) -> None:
        self._left = 0 if level is None else len(level)
        if level is None:
            self.windows = ()
        else:
            # The reference lays all out before it asks, and may fail at it.
            self.windows = level if self._reference is None else tuple(level)
        self.finished = level is None

    def _require_windows(self) -> None:
        if not self._left:
            state = "finished" if self.finished else "failed"
            raise ValueError(f"the extraction is {state}: it has no windows to be answered")

    def _require_finished(self) -> None:
        if not self.finished:
            waiting = f"{len(self.windows)} windows are waiting for an answer; advance first"
            raise RuntimeError(waiting if self.windows else "the extraction has failed; it has no result")


@dataclass(frozen=True, slots=True, eq=False)
class _CompiledTask:
    """What all events of a task share: the hints of level 0 above all."""

    builder: HintBuilder
    chunks: tuple[Chunk, ...]
    skipped_types: tuple[str, ...]
    legal: LegalPaths | None
    aspect: Encoded
    """The implicit aspect, whose tokens stand nowhere in the text; without one it has none."""


class Engine:
    """Starts extractions for one model version's tokenizer and limits. Its caches are bounded."""

    def __init__(self, tokenizer: PromptTokenizer, prompt_limits: PromptLimits, limits: ExtractionLimits) -> None:
        """Raises ValueError for prompt limits that cannot work: every hint must hold a prefix with one type, and every
        window more text than its overlap.
        """
        if prompt_limits.prefix_max_len + prompt_limits.type_max_len + 2 > prompt_limits.hint_max_len:
            raise ValueError(
                f"hint_max_len {prompt_limits.hint_max_len} cannot hold a prefix of {prompt_limits.prefix_max_len} and "
                f"a type of {prompt_limits.type_max_len} tokens; the model's bundle does not fit this version"
            )
        if prompt_limits.max_len - prompt_limits.hint_max_len - 1 <= prompt_limits.stride_len:
            raise ValueError(
                f"max_len {prompt_limits.max_len} leaves no text beside a hint of {prompt_limits.hint_max_len} tokens "
                f"and an overlap of {prompt_limits.stride_len}; the model's bundle does not fit this version"
            )
        self.tokenizer = tokenizer
        self.limits = limits
        self.prompt_limits = prompt_limits
        # Two, so that a flood of schemas that come with events takes no entry from the tasks that everyone uses.
        self._hints = HintCache(tokenizer, prompt_limits)
        self._inline_hints = HintCache(tokenizer, prompt_limits, _INLINE_HINTS)
        self._encoded = Encoded("", np.empty(0, dtype=np.int32), np.empty((0, 2), dtype=np.int32))
        """The last text: the tasks of an event start one after the other."""
        self._cached_task = lru_cache(maxsize=_CACHED_TASKS)(self._compiled)

    def start(self, text: str, task: Task) -> Extraction:
        """Begin a task on a text. Marker literals in the text and in type names are ordinary text.

        Raises BadInput: stage ``validate`` with ``EmptyText``, ``TextTooLong``, ``InvalidSchema``, ``SchemaTooDeep``
        or ``SchemaTooWide``; stage ``extract`` with ``TooManyModelCalls``, which ``advance`` may raise as well.
        """
        if len(text) > self.limits.text_chars:
            raise self.limits.text_too_long(text)
        text = encodable(text)
        encoded = self._encoded
        if encoded.text is not text:  # else another task of the same event
            encoded = self._encoded = self.tokenizer.encode(text)
        if not len(encoded.ids):
            raise BadInput(
                "validate",
                "EmptyText",
                f"the text has {len(text)} characters, and none that the tokenizer keeps; send some words",
            )
        compiled = self._compiled(task) if task.name == INLINE else self._cached_task(task)
        notes = Notes(dict.fromkeys(compiled.skipped_types))
        search = self._span_search if task.kind == "extract" else self._classification
        return Extraction(search(encoded, task, compiled, notes), result_bytes=self.limits.result_bytes)

    def _budget(self, task: Task) -> tuple[int, str]:
        """The search's budget of model calls, and the key that it comes from."""
        inline, every = self.limits.inline_model_calls, self.limits.model_calls
        if task.name == INLINE and inline < every:
            return inline, "limits.inline_model_calls"
        return every, "limits.model_calls"

    def _classification(self, encoded: Encoded, task: Task, compiled: _CompiledTask, notes: Notes) -> Classification:
        single = task.kind == "classify"
        token = self.tokenizer.classify if single else self.tokenizer.multiclassify
        marker = CLASSIFY if single else MULTICLASSIFY
        budget, budget_key = self._budget(task)
        return Classification(
            builder=compiled.builder,
            notes=notes,
            budget=budget,
            budget_key=budget_key,
            overlap=0,
            first=compiled.chunks,
            encoded=Encoded(
                marker,
                np.concatenate((np.array([token], dtype=np.int32), encoded.ids)),
                np.array([[0, len(marker)]], dtype=np.int32),
            ),
            characters=len(encoded.text),
            marker=marker,
            token=token,
            single=single,
            legal=compiled.legal,
            cap=self.limits.facts,
            threshold=task.threshold,
        )

    def known_good_window(self, text: str = "好") -> Window:
        """A window that any model of this tokenizer answers, in milliseconds; a longer ``text`` makes a longer one.

        Its markers have the highest token ids there are, so a model with a smaller vocabulary refuses it.
        """
        return self.start(text, Task("known-good", "classify", {"好": None})).windows[0]

    def _span_search(self, encoded: Encoded, task: Task, compiled: _CompiledTask, notes: Notes) -> SpanSearch:
        aspect = compiled.aspect
        if len(aspect.ids):
            ids, offsets = np.concatenate((aspect.ids, encoded.ids)), np.concatenate((aspect.offsets, encoded.offsets))
            encoded = Encoded(encoded.text, ids, offsets)
        budget, budget_key = self._budget(task)
        return SpanSearch(
            builder=compiled.builder,
            notes=notes,
            budget=budget,
            budget_key=budget_key,
            overlap=self.prompt_limits.stride_len,
            first=compiled.chunks,
            encoded=encoded,
            characters=len(encoded.text),
            aspect=aspect.text if len(aspect.ids) else None,
            legal=compiled.legal,
            cap=self.limits.facts,
            threshold=task.threshold,
        )

    def _compiled(self, task: Task) -> _CompiledTask:
        notes = Notes()
        schema = parse_schema(task.schema, self.limits)
        if task.name == INLINE:
            refuse_long_names(schema)
        cache = self._inline_hints if task.name == INLINE else self._hints
        builder = HintBuilder(self.tokenizer, self.prompt_limits, cache)
        chunks = tuple(builder.chunks([Parent((), (), schema)], notes, special=False))
        legal = task.legal_paths
        if legal is not None:
            legal = frozenset(tuple(encodable(name).strip() for name in path) for path in legal)
        aspect = self.tokenizer.encode(encodable(task.implicit_aspect or ""))
        aspect = Encoded(aspect.text.strip(), aspect.ids, np.full_like(aspect.offsets, IMPLICIT))
        return _CompiledTask(builder, chunks, tuple(notes.skipped_types), legal, aspect)


_FACT_BYTES = 80
"""Most that a fact takes as JSON beside its type and its span."""


def _within(paths: Sequence[Path], most: int) -> int:
    """How many of ``paths``, from the first on, are at most ``most`` bytes of JSON."""
    # No character takes more than six bytes ("\u0001"), so nearly every result is known to fit without writing it.
    if sum([6 * (len(fact.type) + len(fact.span or "")) + _FACT_BYTES for path in paths for fact in path]) <= most:
        return len(paths)
    size = 0
    for number, path in enumerate(paths):
        for fact in path:
            size += len(json.dumps([fact.type, fact.span], ensure_ascii=False).encode()) + _FACT_BYTES
        if size > most:
            return number
    return len(paths)


def _warnings(search: Search) -> tuple[str, ...]:
    """One line for each kind of note, starting with a stable slug. Without review text."""
    notes, limits = search.notes, search.builder.limits
    lines = []
    if notes.skipped_types:
        names = ", ".join(shown(name) for name in list(notes.skipped_types)[:_NAMED])
        more = len(notes.skipped_types) - _NAMED
        lines.append(
            f"types-skipped: {len(notes.skipped_types)} over {limits.type_max_len - 1} tokens: {names}"
            + (f" and {more} more" if more > 0 else "")
        )
    if notes.skipped_parents:
        lines.append(
            f"children-skipped: {notes.skipped_parents} found facts over {limits.prefix_max_len - 1} tokens "
            "were not expanded"
        )
    if notes.crossed_aspect:
        lines.append(f"aspect-crossed: {notes.crossed_aspect} spans from the implicit aspect into the text dropped")
    if notes.capped_at is not None:
        lines.append(f"facts-capped: more than {notes.capped_at} facts on a level or paths; the rest was dropped")
    if notes.fallback:
        lines.append("fallback: no type scored above 0.5; the best guess is reported")
    return tuple(lines)


_NAMED = 5
"""Skipped types that a warning lists by name."""
