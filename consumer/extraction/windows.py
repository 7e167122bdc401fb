"""Windows: one hint over one piece of the text (specification section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from consumer.extraction.layout import walked
from consumer.extraction.window import IntArray, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.extraction.hints import Chunk, Hint
    from consumer.extraction.tokenizer import Encoded, PromptTokenizer

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
