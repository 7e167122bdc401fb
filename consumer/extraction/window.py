"""Windows, the unit of model work: one hint over one piece of a text, and the logits that come back for it.

``Window`` and ``Cells`` are what the engine exchanges with the model client. The rest makes windows: a text is cut into
pieces (docs/extraction.md, section 5), and each piece is laid out behind a hint with position ids and segment labels
(sections 6 and 7). ``Search`` does so for the levels of one extraction, within the event's budget of model calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.events import BadInput
from consumer.extraction.task import ReferenceCrash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.extraction.prompts import Chunk, Encoded, Hint, HintBuilder, IntArray, Parent, Prompt, PromptTokenizer
    from consumer.extraction.task import Notes

FloatArray = NDArray[np.float32]
LegalPaths = frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One row of a model call, not padded. All arrays are int32 of length L (at most 512 tokens)."""

    input_ids: IntArray
    position_ids: IntArray
    segment: IntArray
    """``prefix * 256 + type`` for hint tokens, both from 1 and type 0 for the prefix itself; 0 for everything else."""
    text_start: int
    """H: index of the first text token."""

    @property
    def length(self) -> int:
        """L in tokens, special tokens included."""
        return len(self.input_ids)


class Cells(NamedTuple):
    """Logits of a window: every legal cell above 0, and the classification cells whatever their sign.

    Parallel arrays: ``rows`` and ``columns`` int32[n], ``logits`` float32[n]. An absent cell is not positive.
    """

    rows: IntArray
    columns: IntArray
    logits: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A window, and what is needed to read its answer: whose types, and which characters its text tokens are."""

    window: Window
    chunk: Chunk
    text: str
    offsets: list[tuple[int, int]]
    """Code points in ``text`` for each text token of the window, the final ``[SEP]`` excluded."""

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Half-open code points of the tokens ``first`` to ``last``, without leading spaces."""
        begin, finish = first - self.window.text_start, last - self.window.text_start
        # Behind the last token stands [SEP], to which the tokenizer gives the offset (0, 0).
        start = self.offsets[begin][0] if begin < len(self.offsets) else 0
        end = self.offsets[finish][1] if finish < len(self.offsets) else 0
        while 0 <= start < end and self.text[start] == " ":
            start += 1
        return start, end


@dataclass(slots=True, kw_only=True)
class Search:
    """One task on one text: packs the types of each level into hints and cuts the text into windows for them."""

    builder: HintBuilder
    notes: Notes
    budget: int
    """Windows that may still be sent to the model."""
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
    legal: LegalPaths | None
    """Paths that may be reported; None for all that end in a leaf."""
    cap: int | None
    """Most facts or parents of one level, and most paths in all."""
    threshold: float | None = None
    """Mean score that a reported path reaches; None for the reference's own rule."""

    def pay_first(self) -> None:
        """Take the windows of level 0 off the budget, as ``pay`` does."""
        for chunk in self.first:
            self.pay(len(chunk.hint.ids), len(self.encoded.ids))

    def chunks(self, parents: Sequence[Parent], tokens: int) -> list[Chunk]:
        """Pack and build the hints of a level for a text of ``tokens`` tokens.

        Each hint's windows are taken off the budget before any hint is built, and packing stops where it is used up:
        see ``pay``.
        """
        paid = []
        for packed in self.builder.pack(parents, self.notes, special=self.special):
            self.pay(packed.length, tokens)
            paid.append(packed)
        return [self.builder.build(packed, special=self.special) for packed in paid]

    def pay(self, hint_length: int, tokens: int) -> None:
        """Take one hint's windows over ``tokens`` text tokens off the budget. Raises BadInput ``TooManyModelCalls``."""
        capacity = self.capacity(hint_length)
        self.budget -= window_count(tokens, capacity, capacity - self.overlap)
        if self.budget < 0:
            raise BadInput(
                "extract",
                "TooManyModelCalls",
                f"a text of {tokens} tokens with this schema needs more model calls than {self.budget_key} allows; "
                "shorten the text, split the schema or raise the limit",
            )

    def pieces(self, chunk: Chunk, tokens: int) -> Iterator[tuple[int, int]]:
        """Token ranges of a chunk's windows over ``tokens`` text tokens."""
        capacity = self.capacity(len(chunk.hint.ids))
        return pieces(tokens, capacity, capacity - self.overlap)

    def capacity(self, hint_length: int) -> int:
        """Text tokens that fit into one window beside a hint of H tokens and the final ``[SEP]``."""
        return self.builder.limits.max_len - hint_length - 1


def window_count(tokens: int, capacity: int, step: int) -> int:
    """Windows over ``tokens`` text tokens when each takes ``capacity`` and starts ``step`` after the one before."""
    return 1 if tokens <= capacity else 1 + -(-(tokens - capacity) // step)


def pieces(tokens: int, capacity: int, step: int) -> Iterator[tuple[int, int]]:
    """Token ranges of the windows; the last is the first one that reaches the end."""
    for number in range(window_count(tokens, capacity, step)):
        yield number * step, min(number * step + capacity, tokens)


def write_window(tokenizer: PromptTokenizer, hint: Hint, piece: IntArray, *, has_markers: bool = False) -> Window:
    """``hint piece [SEP]``. ``has_markers``: the piece holds marker tokens that open segments.

    Raises ReferenceCrash, in compatibility mode only.
    """
    start = len(hint.ids)
    length = start + len(piece) + 1
    ids = np.empty(length, dtype=np.int32)
    ids[:start] = hint.ids
    ids[start:-1] = piece
    ids[-1] = tokenizer.sep
    if has_markers or hint.has_markers:
        return Window(ids, *marked_layout(ids.tolist(), tokenizer), start)
    text_positions = np.arange(hint.text_position, hint.text_position + length - start, dtype=np.int32)
    segments = np.concatenate((hint.segments, np.zeros(length - start, dtype=np.int32)))
    return Window(ids, np.concatenate((hint.positions, text_positions)), segments, start)


def text_prompt(parent: Parent, kind: str, span: str) -> Prompt:
    """Prompt of a fact below ``parent``: ``type: span``, facts joined by commas (docs/extraction.md, section 4)."""
    above = f"{parent.prompt[0]}," if parent.prompt else ""
    return (f"{above}{kind}: {span}",)


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
