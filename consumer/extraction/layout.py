"""Position ids and segment labels of a prompt (specification sections 6 and 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from consumer.extraction.crash import ReferenceCrash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.tokenizer import PromptTokenizer
    from consumer.extraction.window import IntArray

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
