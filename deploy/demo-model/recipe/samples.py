"""Training samples: a hint as the worker's engine builds it, a text, and the cells that decoding should find positive.

The layout of a prompt is the engine's own code (``consumer.extraction.prompts``), so a sample and a worker's window
cannot differ. Tokens of a sample are numbered within its text until ``collate`` puts the hint in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from consumer.extraction.hint import Packed, Parent
from consumer.extraction.prompts import HintBuilder, HintCache, PromptLimits, PromptTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from numpy.typing import NDArray

    from consumer.extraction.hint import Hint, Prompt

    Ids = NDArray[np.int32]
    Bools = NDArray[np.bool_]

MULTIPLE = 8
"""Lengths of a batch are rounded up to a multiple of this many tokens."""
LONGEST = 300
"""Tokens of the longest sample that is trained on; few reviews need more, and their cost grows with the square."""


class Cell(NamedTuple):
    """A span of text tokens ``first`` to ``last``, both included, that belongs to type ``slot`` of the hint.

    ``slot`` None: the span alone, for a classification marker without a class that fits.
    """

    slot: int | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Sample:
    """``length`` counts hint, text and the final [SEP], in tokens."""

    hint: Hint
    text: Ids
    cells: tuple[Cell, ...]
    kind: str
    """Of which task it is, for the log."""

    @property
    def length(self) -> int:
        """L in tokens."""
        return len(self.hint.ids) + len(self.text) + 1


class Encoded(NamedTuple):
    """Tokens of a text, and which token begins and which ends at a code point."""

    ids: Ids
    begins: dict[int, int]
    ends: dict[int, int]


class Layout:
    """Makes samples for one tokenizer."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer
        limits = PromptLimits()
        self._builder = HintBuilder(tokenizer, limits, HintCache(tokenizer, limits, 4096))

    def encoded(self, text: str) -> Encoded:
        """A text's tokens; a marker literal in it is ordinary text."""
        tokens = self.tokenizer.encode(text)
        offsets = tokens.offsets.tolist()
        return Encoded(
            tokens.ids,
            {start: token for token, (start, _) in enumerate(offsets)},
            {end: token for token, (_, end) in enumerate(offsets)},
        )

    def hint(self, groups: Sequence[tuple[Prompt, Sequence[str]]]) -> Hint:
        """``groups`` are prefixes with the types below each, in the order of slots."""
        packed = [(Parent((), prompt, dict.fromkeys(names)), list(names)) for prompt, names in groups]
        return self._builder.build(Packed(packed, 0), special=False).hint

    def extraction(
        self,
        text: str,
        groups: Sequence[tuple[str, Sequence[str]]],
        spans: Iterable[tuple[int, int, int, int]],
        kind: str,
    ) -> Sample:
        """``spans`` are (group, type within it, start, end) in code points; those that cut a token are left out."""
        tokens = self.encoded(text)
        first_slot = np.cumsum([0, *(len(names) for _, names in groups)]).tolist()
        cells = dict.fromkeys(
            Cell(first_slot[group] + which, tokens.begins[start], tokens.ends[end])
            for group, which, start, end in spans
            if start in tokens.begins and end in tokens.ends
        )
        hint = self.hint([((prefix,) if prefix else (), names) for prefix, names in groups])
        return Sample(hint, tokens.ids, tuple(cells), kind)

    def classification(
        self, text: str, names: Sequence[str], fitting: set[str], kind: str, *, multi: bool, prompt: Prompt = ()
    ) -> Sample:
        """The marker, then the text. ``fitting`` are the names that fit, perhaps none."""
        marker = self.tokenizer.multiclassify if multi else self.tokenizer.classify
        ids = np.concatenate((np.array([marker], np.int32), self.tokenizer.encode(text).ids))
        cells = tuple(Cell(slot, 0, 0) for slot, name in enumerate(names) if name in fitting)
        return Sample(self.hint([(prompt, names)]), ids, cells or (Cell(None, 0, 0),), kind)


class Batch(NamedTuple):
    """Arrays ``[B, L]`` and ``[B, L, L]``; padding has segment -1."""

    ids: Ids
    positions: Ids
    segments: Ids
    legal: Bools
    """Cells that decoding reads: text x text on and above the diagonal, text x type, type x text."""
    wanted: Bools
    """Legal cells that should be positive."""
    tokens: int
    """Tokens without padding."""


def collate(samples: Sequence[Sample], pad: int) -> Batch:
    """Put samples into one padded batch."""
    longest = max(sample.length for sample in samples)
    rows, length = len(samples), -(-longest // MULTIPLE) * MULTIPLE
    ids = np.full((rows, length), pad, np.int32)
    positions = np.zeros((rows, length), np.int32)
    segments = np.full((rows, length), -1, np.int32)
    text, types = np.zeros((rows, length), np.bool_), np.zeros((rows, length), np.bool_)
    wanted = np.zeros((rows, length, length), np.bool_)
    for row, sample in enumerate(samples):
        hint, start, end = sample.hint, len(sample.hint.ids), sample.length
        ids[row, :start], ids[row, start : end - 1], ids[row, end - 1] = hint.ids, sample.text, hint.ids[-1]
        positions[row, :start], segments[row, :start] = hint.positions[:start], hint.segments[:start]
        positions[row, start:] = hint.positions[start] + np.arange(length - start)
        segments[row, start:end] = 0
        text[row, start : end - 1] = True
        slots = np.flatnonzero(np.array(hint.slot_at) >= 0)
        types[row, slots] = True
        for slot, first, last in sample.cells:
            first, last = first + start, last + start
            wanted[row, first, last] = True
            if slot is not None:
                token = slots[slot]
                wanted[row, first, token] = wanted[row, token, last] = True
    index = np.arange(length)
    legal = text[:, :, None] & text[:, None, :] & (index[:, None] <= index)
    legal |= (text[:, :, None] & types[:, None, :]) | (types[:, :, None] & text[:, None, :])
    return Batch(ids, positions, segments, legal, wanted, sum(sample.length for sample in samples))


def batched(samples: Sequence[Sample], tokens: int, rng: Random) -> list[list[Sample]]:
    """Batches of about ``tokens`` padded tokens, of samples of similar length, in random order."""
    by_length = sorted(samples, key=lambda sample: -(-sample.length // MULTIPLE))
    batches: list[list[Sample]] = []
    for sample in by_length:
        padded = -(-sample.length // MULTIPLE) * MULTIPLE
        if not batches or (len(batches[-1]) + 1) * padded > tokens:
            batches.append([])
        batches[-1].append(sample)
    rng.shuffle(batches)
    return batches


def corrupted(ids: Ids, text: Bools, rng: np.random.Generator, share: float, mask: int) -> Ids:
    """Some text tokens replaced by ``mask``: a little noise against learning reviews by heart."""
    chosen: Ids = np.where(text & (rng.random(ids.shape) < share), np.int32(mask), ids)
    return chosen
