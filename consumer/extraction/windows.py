"""Windows: one hint over one piece of the text (specification section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from consumer.events import BadInput
from consumer.extraction.task import ReferenceCrash
from consumer.extraction.window import IntArray, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.extraction.contract import PromptLimits
    from consumer.extraction.prompts import Chunk, Encoded, Hint, HintBuilder, Parent, Prompt, PromptTokenizer
    from consumer.extraction.task import Notes
    from consumer.extraction.window import IntArray


# Position ids and segment labels of a prompt (specification sections 6 and 7).

TYPES_PER_PREFIX: Final = 255
"""What a segment label ``prefix * 256 + type`` can tell apart."""


class Layout(NamedTuple):
    """Per token, both int32[n]."""

    positions: IntArray
    segments: IntArray


@dataclass(slots=True)
class _Group:
    """Token indexes of one prefix and of each of its types."""

    prefix: list[int] = field(default_factory=list)
    types: list[list[int]] = field(default_factory=list)


def walked(ids: Sequence[int], tokenizer: PromptTokenizer) -> Layout:
    """Layout of a whole window whose text or names hold marker tokens.

    Tokens belong to the segment that the last ``[PREFIX]``, ``[TYPE]`` or ``[SEP]`` opened, wherever it stands.
    Positions are counted class by class (prefixes with their types, then text) and written down in token order, as the
    reference does. Raises ReferenceCrash for a ``[PREFIX]`` that no ``[TYPE]`` follows.
    """
    groups: list[_Group] = []
    text: list[int] = []
    target = text
    for index, token in enumerate(ids[1:], 1):
        if token == tokenizer.prefix:
            groups.append(_Group())
            target = groups[-1].prefix
        elif token == tokenizer.type:
            target = []
            groups[-1].types.append(target)
        elif token == tokenizer.sep:
            target = text
        target.append(index)
    return Layout(_positions(groups, len(text)), _segments(groups, len(ids)))


def _positions(groups: list[_Group], text: int) -> IntArray:
    ranges = [range(1)]
    for group in groups:
        base = 1 + len(group.prefix)
        ranges.append(range(1, base))
        ranges += (range(base, base + len(kind)) for kind in group.types)
    last = max(run[-1] for run in ranges if run)
    ranges.append(range(last + 1, last + 1 + text))
    return np.fromiter(chain.from_iterable(ranges), dtype=np.int32)


def _segments(groups: list[_Group], length: int) -> IntArray:
    segments = np.zeros(length, dtype=np.int32)
    for number, group in enumerate(groups, 1):
        if not group.types:
            raise ReferenceCrash("IndexError: list index out of range")
        if len(group.types) > TYPES_PER_PREFIX:
            raise ReferenceCrash(f"more than {TYPES_PER_PREFIX} [TYPE] markers in one group of a window")
        # A group reaches to the end of its last type, over text tokens in between: other groups do not see those.
        segments[group.prefix[0] : group.types[-1][-1] + 1] = number * 256
        for kind, tokens in enumerate(group.types, 1):
            segments[tokens[0] : tokens[-1] + 1] = number * 256 + kind
    return segments


Offsets = list[tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A window, and what is needed to read its answer: whose types, and which characters its text tokens are."""

    window: Window
    chunk: Chunk
    text: str
    offsets: Offsets
    """Code points in ``text`` for each text token of the window, the final ``[SEP]`` excluded."""
    number: int
    """0 for a chunk's first window."""

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Half-open code points of the tokens ``first`` to ``last``, without leading spaces."""
        start = self._offset(first)[0]
        end = self._offset(last)[1]
        while 0 <= start < end and self.text[start] == " ":
            start += 1
        return start, end

    def _offset(self, token: int) -> tuple[int, int]:
        index = token - self.window.text_start
        return self.offsets[index] if index < len(self.offsets) else (0, 0)  # the tokenizer's offset of [SEP]


def capacity(hint_length: int, max_len: int) -> int:
    """Text tokens that fit into one window beside a hint of H tokens and the final ``[SEP]``."""
    return max_len - hint_length - 1


def window_count(tokens: int, room: int, step: int) -> int:
    """Windows over ``tokens`` text tokens when each takes ``room`` and starts ``step`` after the one before."""
    return 1 if tokens <= room else 1 + -(-(tokens - room) // step)


def pieces(tokens: int, room: int, step: int) -> Iterator[tuple[int, int]]:
    """Token ranges of the windows; the last is the first one that reaches the end."""
    for number in range(window_count(tokens, room, step)):
        yield number * step, min(number * step + room, tokens)


def overlapping(
    chunk: Chunk, encoded: Encoded, text: str, room: int, stride: int, writer: WindowWriter, *, odd: bool
) -> list[View]:
    """Extraction: windows share ``stride`` tokens with their neighbour. ``odd`` as in WindowWriter.write."""
    views = []
    for number, (start, end) in enumerate(pieces(len(encoded.ids), room, room - stride)):
        window = writer.write(chunk.hint, encoded.ids[start:end], odd=odd)
        views.append(View(window, chunk, text, encoded.offsets[start:end], number))
    return views


class WindowWriter:
    """Writes the arrays of windows."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer

    def write(self, hint: Hint, piece: IntArray, *, odd: bool = False) -> Window:
        """``hint piece [SEP]``. ``odd``: the piece holds marker tokens that open segments.

        Raises ReferenceCrash, in compatibility mode only.
        """
        start = len(hint)
        length = start + len(piece) + 1
        ids = np.empty(length, dtype=np.int32)
        ids[:start] = hint.ids
        ids[start:-1] = piece
        ids[-1] = self._tokenizer.sep
        if odd or hint.odd:
            layout = walked(ids.tolist(), self._tokenizer)
            return Window(ids, layout.positions, layout.segments, start)
        positions = np.empty(length, dtype=np.int32)
        positions[:start] = hint.positions
        positions[start:] = np.arange(hint.text_position, hint.text_position + length - start, dtype=np.int32)
        segments = np.zeros(length, dtype=np.int32)
        segments[:start] = hint.segments
        return Window(ids, positions, segments, start)

    def opens_segments(self, ids: Sequence[int] | IntArray) -> bool:
        """Whether a text's tokens hold ``[PREFIX]`` or ``[TYPE]``."""
        return bool(np.isin(ids, (self._tokenizer.prefix, self._tokenizer.type)).any())


# From parents to chunks of types, within the number of windows an event may ask for.


@dataclass(slots=True)
class Prompting:
    """Lays out the levels of one extraction. ``overlap`` is what neighbouring windows share, in tokens."""

    builder: HintBuilder
    prompt_limits: PromptLimits
    notes: Notes
    budget: int
    """Windows that may still be asked."""
    special: bool
    overlap: int

    def chunks(self, parents: Sequence[Parent]) -> list[Chunk]:
        """Pack and build the hints of a level."""
        packed = self.builder.pack(parents, self.notes, special=self.special)
        return [self.builder.build(one, special=self.special) for one in packed]

    def affordable(self, parents: Sequence[Parent], tokens: int) -> list[Chunk]:
        """As ``chunks``, but pays for the windows over ``tokens`` text tokens first. Stops packing when it cannot."""
        paid = []
        for one in self.builder.pack(parents, self.notes, special=self.special):
            self._pay(one.length, tokens)
            paid.append(one)
        return [self.builder.build(one, special=self.special) for one in paid]

    def afford(self, chunks: Sequence[Chunk], tokens: int) -> None:
        """Pay for chunks that are built already. Raises BadInput ``TooManyModelCalls``."""
        for chunk in chunks:
            self._pay(len(chunk.hint), tokens)

    def room(self, hint_length: int) -> int:
        """Text tokens beside a hint."""
        return capacity(hint_length, self.prompt_limits.max_len)

    def _pay(self, hint_length: int, tokens: int) -> None:
        room = self.room(hint_length)
        self.budget -= window_count(tokens, room, room - self.overlap)
        if self.budget < 0:
            raise BadInput(
                "extract",
                "TooManyModelCalls",
                f"a text of {tokens} tokens with this schema needs more model calls than limits.model_calls allows; "
                "shorten the text, split the schema or raise the limit",
            )


def spoken(parent: Parent, kind: str, span: str) -> Prompt:
    """Prompt of a fact below ``parent``: ``type: span``, facts joined by commas (specification section 4)."""
    above = f"{parent.prompt[0]}," if parent.prompt else ""
    return (f"{above}{kind}: {span}",)


def stamped(parent: Parent, kind: str, marker: int) -> Prompt:
    """As ``spoken`` where the span is a marker token, which is placed by its id: its literal would be plain text."""
    return (*parent.prompt, f"{',' if parent.prompt else ''}{kind}: ", marker)
