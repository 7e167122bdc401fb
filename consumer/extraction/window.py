"""Windows, the unit of model work: one hint over one piece of a text, and the logits that come back for it.

``Window`` and ``Cells`` are what the engine exchanges with the model client. The rest makes windows: a text is cut into
pieces (docs/extraction.md, section 5), and each piece is laid out behind a hint with position ids and segment labels
(sections 6 and 7). ``Search`` plans the levels of one extraction, within the event's budget of model calls; a ``Level``
lays a window out when it is asked for: thousands of them at once would take tens of megabytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.events import BadInput
from consumer.extraction.prompts import MAX_PROMPT_CHARS
from consumer.extraction.task import Notes, ReferenceCrash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.extraction.hint import Chunk, Hint, Packed, Parent, Prompt
    from consumer.extraction.prompts import Encoded, HintBuilder, IntArray, PromptTokenizer

HELD_TYPES: Final = 4096
"""A level with more types below its parents is packed a second time when its windows are laid out, instead of being
held: a thousand parents with 512 types each would take megabytes."""

FloatArray = NDArray[np.float32]
LegalPaths = frozenset[tuple[str, ...]]


class Window:
    """One row of a model call, not padded. All arrays are int32 of length L (at most 512 tokens)."""

    __slots__ = ("input_ids", "length", "position_ids", "segment", "text_start")

    def __init__(self, input_ids: IntArray, position_ids: IntArray, segment: IntArray, text_start: int) -> None:
        self.input_ids = input_ids
        self.position_ids = position_ids
        self.segment = segment
        """``prefix * 256 + type`` for hint tokens, both from 1 and type 0 for the prefix itself; else 0."""
        self.text_start = text_start
        """H: index of the first text token."""
        self.length = len(input_ids)
        """L in tokens, special tokens included."""


class Cells(NamedTuple):
    """Logits of a window: every legal cell above 0, and the classification cells whatever their sign.

    Parallel arrays: ``rows`` and ``columns`` int32[n], ``logits`` float32[n]. An absent cell is not positive.
    """

    rows: IntArray
    columns: IntArray
    logits: FloatArray


@dataclass(slots=True, eq=False)
class View:
    """What is needed to read a window's answer: whose types, and which characters its text tokens are."""

    chunk: Chunk
    text: str
    offsets: IntArray
    """int32[n, 2]: code points in ``text`` for each text token of the window, the final ``[SEP]`` excluded."""
    length: int
    """L of the window, in tokens."""
    text_start: int
    """H: index of the first text token."""

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Half-open code points of the tokens ``first`` to ``last``, without leading spaces."""
        begin, finish = first - self.text_start, last - self.text_start
        # Behind the last token stands [SEP], to which the tokenizer gives the offset (0, 0).
        start: int = self.offsets.item(begin, 0) if begin < len(self.offsets) else 0
        end: int = self.offsets.item(finish, 1) if finish < len(self.offsets) else 0
        while 0 <= start < end and self.text[start] == " ":
            start += 1
        return start, end


@dataclass(slots=True, eq=False)
class Hints:
    """The hints of one level. ``chunks`` are built one after the other, when they are asked for."""

    ends: list[int]
    """Windows of each hint and of those before it."""
    chunks: Iterator[Chunk]


class Level(Sequence[Window]):
    """The windows of one level in order: all pieces of the text behind the first hint, then behind the next.

    An index lays out that window. ``view`` says how to read its answer; whoever has read an answer asks for no earlier
    window any more, and their hints are dropped.
    """

    __slots__ = ("_built", "_chunks", "_count", "_encoded", "_ends", "_hints", "_last", "_search")

    def __init__(self, search: Search, hints: Hints, encoded: Encoded) -> None:
        self._search = search
        self._hints = hints
        self._encoded = encoded
        self._ends = hints.ends
        self._count = hints.ends[-1] if hints.ends else 0
        self._chunks: dict[int, Chunk] = {}
        self._built = 0
        self._last: tuple[int, Chunk, IntArray, IntArray] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        """Lay out a window. Raises IndexError."""
        if isinstance(number, slice):
            return tuple(self[each] for each in range(*number.indices(len(self))))
        _, chunk, ids, _ = self._cut(number if number >= 0 else number + len(self))
        return write_window(self._search.builder.tokenizer, chunk.hint, ids, has_markers=self._search.has_markers)

    def view(self, number: int) -> View:
        """How to read the answer of window ``number``; it and its successors remain."""
        _, chunk, ids, offsets = self._cut(number)
        start = len(chunk.hint.ids)
        return View(chunk, self._encoded.text, offsets, start + len(ids) + 1, start)

    def passed(self, number: int) -> None:
        """The answer of window ``number`` was read, and those of all before it."""
        hint = bisect_right(self._ends, number)
        if number + 1 == self._ends[hint]:
            self._chunks.pop(hint, None)

    def _cut(self, number: int) -> tuple[int, Chunk, IntArray, IntArray]:
        """A window's number, its hint, and the tokens and code points of its text."""
        if self._last is not None and self._last[0] == number:
            return self._last
        if not 0 <= number < self._count:
            raise IndexError(f"the level has {self._count} windows")
        hint = bisect_right(self._ends, number)
        while self._built <= hint:
            self._chunks[self._built] = next(self._hints.chunks)
            self._built += 1
        chunk, piece = self._chunks[hint], number - (self._ends[hint - 1] if hint else 0)
        self._last = (number, chunk, *self._search.piece(self._encoded, len(chunk.hint.ids), piece))
        return self._last


@dataclass(slots=True, kw_only=True)
class Search:
    """One task on one text: packs the types of each level into hints and cuts the text into windows for them."""

    builder: HintBuilder
    notes: Notes
    budget: int
    """Windows that may be sent to the model."""
    budget_key: str = "limits.model_calls"
    """The configuration's key that gave it."""
    special: bool = False
    """As in PromptTokenizer."""
    overlap: int
    """Tokens that neighbouring windows share."""
    first: Sequence[Chunk]
    """The hints of level 0, which all events of the task share."""
    encoded: Encoded
    """The text, with the implicit aspect or the marker in front of its tokens."""
    characters: int
    """Of the event's text, for messages."""
    legal: LegalPaths | None
    """Paths that may be reported; None for all that end in a leaf."""
    cap: int | None
    """Most facts or parents of one level, and most paths in all."""
    threshold: float | None = None
    """Mean score that a reported path reaches; None for the reference's own rule."""

    has_markers: bool = False
    """Whether the text holds marker tokens that open segments."""
    paid: int = 0
    """Windows that were taken off the budget."""

    def plan_first(self) -> Hints:
        """The hints of level 0, their windows taken off the budget as ``plan`` does."""
        hints = self.hints_of_first()
        self.paid += hints.ends[-1] if hints.ends else 0
        if self.paid > self.budget:
            raise self._too_many(len(self.encoded.ids), sum(len(chunk.owners) for chunk in self.first), 0)
        return hints

    def hints_of_first(self) -> Hints:
        """The hints of level 0; nothing is taken off the budget."""
        tokens = len(self.encoded.ids)
        count, ends = 0, []
        for chunk in self.first:
            count += self.windows(len(chunk.hint.ids), tokens)
            ends.append(count)
        return Hints(ends, iter(self.first))

    def plan(self, parents: Sequence[Parent], tokens: int) -> Hints:
        """Pack the hints of a level for a text of ``tokens`` tokens.

        Each hint's windows are taken off the budget before any hint is built; packing stops soon after it is used up.
        Raises BadInput ``TooManyModelCalls``.
        """
        if not parents:
            return Hints([], iter(()))
        packed = self.builder.pack(parents, self.notes, special=self.special)
        types = sum([len(parent.children) for parent in parents])
        is_held = types <= HELD_TYPES
        held: list[Packed] = []
        before, ends = self.paid, []
        for one in packed:
            self.paid += self.windows(one.length, tokens)
            if self.paid > self.budget and not is_held:
                break
            ends.append(self.paid - before)
            if is_held:
                held.append(one)
        if self.paid > self.budget:
            raise self._too_many(tokens, types, len(parents))
        packed = iter(held) if is_held else self.builder.pack(parents, Notes(), special=self.special)
        return Hints(ends, (self.builder.build(one, special=self.special) for one in packed))

    def _too_many(self, tokens: int, types: int, parents: int) -> BadInput:
        """``parents``: the facts below which the types are looked for, 0 on level 0."""
        below = f" below {parents} facts" if parents else ""
        return BadInput(
            "extract",
            "TooManyModelCalls",
            f"{self.characters} characters ({tokens} tokens) with {types} types{below} need at least {self.paid} model "
            f"calls, and {self.budget_key} allows {self.budget}; shorten the text, split the schema or raise the limit",
        )

    def windows(self, hint_length: int, tokens: int) -> int:
        """How many windows ``tokens`` text tokens take beside a hint of H tokens."""
        capacity = self.capacity(hint_length)
        return window_count(tokens, capacity, capacity - self.overlap)

    def piece(self, encoded: Encoded, hint_length: int, number: int) -> tuple[IntArray, IntArray]:
        """Text tokens of the hint's window ``number``, int32[n], and their code points, int32[n, 2]."""
        capacity = self.capacity(hint_length)
        if not number and len(encoded.ids) <= capacity:
            return encoded.ids, encoded.offsets  # as nearly always
        start, end = piece_at(number, len(encoded.ids), capacity, capacity - self.overlap)
        return encoded.ids[start:end], encoded.offsets[start:end]

    def capacity(self, hint_length: int) -> int:
        """Text tokens that fit into one window beside a hint of H tokens and the final ``[SEP]``."""
        return self.builder.limits.max_len - hint_length - 1


def window_count(tokens: int, capacity: int, step: int) -> int:
    """Windows over ``tokens`` text tokens when each takes ``capacity`` and starts ``step`` after the one before."""
    return 1 if tokens <= capacity else 1 + -(-(tokens - capacity) // step)


def piece_at(number: int, tokens: int, capacity: int, step: int) -> tuple[int, int]:
    """Token range of window ``number``; the last is the first one that reaches the end."""
    return number * step, min(number * step + capacity, tokens)


def write_window(tokenizer: PromptTokenizer, hint: Hint, piece: IntArray, *, has_markers: bool = False) -> Window:
    """``hint piece [SEP]``. ``has_markers``: the piece holds marker tokens that open segments.

    Raises ReferenceCrash, in compatibility mode only.
    """
    start = len(hint.ids)
    length = start + len(piece) + 1
    ids = np.concatenate((hint.ids, piece, tokenizer.end))
    if has_markers or hint.has_markers:
        return Window(ids, *marked_layout(ids.tolist(), tokenizer), start)
    return Window(ids, hint.positions[:length], hint.segments[:length], start)


def text_prompt(parent: Parent, kind: str, span: str) -> Prompt:
    """Prompt of a fact below ``parent``: ``type: span``, facts joined by commas (docs/extraction.md, section 4).

    Of one that is too long to be used only as much is kept as shows that.
    """
    above = f"{parent.prompt[0]}," if parent.prompt else ""
    return (f"{above}{kind}: {span}"[: MAX_PROMPT_CHARS + 1],)


def marker_prompt(parent: Parent, kind: str, marker: int) -> Prompt:
    """As ``text_prompt`` where the span is a marker token. It is placed by its id: its literal would be plain text."""
    return (*parent.prompt, f"{',' if parent.prompt else ''}{kind}: ", marker)


TYPES_PER_PREFIX: Final = 255
"""What a segment label ``prefix * 256 + type`` can tell apart."""


def marked_layout(ids: Sequence[int], tokenizer: PromptTokenizer) -> tuple[IntArray, IntArray]:
    """Positions and segments, int32[L] each, of a window whose text or names hold marker tokens (Q10).

    Tokens belong to the segment that the last ``[PREFIX]``, ``[TYPE]`` or ``[SEP]`` opened, wherever it stands.
    Positions are counted class by class (prefixes with their types, then text) and written down in token order, as the
    reference does. Raises ReferenceCrash for a ``[PREFIX]`` that no ``[TYPE]`` follows.
    """
    groups: list[list[list[int]]] = []  # token indexes of each prefix itself, then of each of its types
    text: list[int] = []
    target = text
    for index, token in enumerate(ids[1:], 1):
        if token == tokenizer.sep:
            target = text
        elif token in (tokenizer.prefix, tokenizer.type):
            target = []
            if token == tokenizer.prefix:
                groups.append([])
            groups[-1].append(target)
        target.append(index)
    runs = [range(1)]
    for prefix, *types in groups:
        base = 1 + len(prefix)
        runs += (range(1, base), *(range(base, base + len(tokens)) for tokens in types))
    last = max(run[-1] for run in runs)
    runs.append(range(last + 1, last + 1 + len(text)))
    segments = np.zeros(len(ids), dtype=np.int32)
    for number, (prefix, *types) in enumerate(groups, 1):
        if not types:
            raise ReferenceCrash("IndexError: list index out of range")
        if len(types) > TYPES_PER_PREFIX:
            raise ReferenceCrash(f"more than {TYPES_PER_PREFIX} [TYPE] markers in one group of a window")
        # A group reaches to the end of its last type, over text tokens in between: other groups do not see those.
        segments[prefix[0] : types[-1][-1] + 1] = number * 256
        for kind, tokens in enumerate(types, 1):
            segments[tokens[0] : tokens[-1] + 1] = number * 256 + kind
    return np.fromiter(chain.from_iterable(runs), dtype=np.int32), segments
