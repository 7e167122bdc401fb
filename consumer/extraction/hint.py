"""What hints are made of: found facts and the types below them, and the arrays of a hint. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from consumer.extraction.task import SchemaTree

Prompt = tuple[str | int, ...]
"""Text of a prefix: strings to be tokenised, and ids of tokens that the engine places itself."""


@dataclass(slots=True)
class Found:
    """A fact while its path is still growing."""

    type: str
    span: str
    """Its text, as it stands in the prompt of the next level."""
    start: int
    """Its first code point in the text, -1 for an implicit aspect."""
    end: int
    score: float


@dataclass(slots=True, eq=False)
class Parent:
    """Found facts (none on level 0) and the types to look for below them. Not changed: to be frozen takes its time."""

    facts: tuple[Found, ...]
    prompt: Prompt
    children: SchemaTree


Owner = tuple[Parent, str, "SchemaTree | None"]
"""Whose ``[TYPE]`` token it is: the parent, the name of the type below it, its children (empty or None for a leaf)."""


@dataclass(frozen=True, slots=True, eq=False)
class Hint:
    """``[CLS] hint [SEP]`` as arrays. Shared by all events that ask the same, and read-only."""

    ids: NDArray[np.int32]
    """int32[H]."""
    positions: NDArray[np.int32]
    """int32[max_len], those of text behind the hint, too: a window has as many as it is long."""
    segments: NDArray[np.int32]
    """As ``positions``."""
    slot_at: tuple[int, ...]
    """Token index -> number of the type whose ``[TYPE]`` token it is, -1 for all other tokens."""
    types: int
    """T, types in this hint."""
    has_markers: bool
    """A name or prompt holds a marker token of its own (compatibility mode only): write_window lays it out anew."""


@dataclass(slots=True, eq=False)
class Chunk:
    """A hint and the owner of each of its types, in hint order."""

    hint: Hint
    owners: tuple[Owner, ...]


@dataclass(slots=True, eq=False)
class Packed:
    """Parents and type names of one hint before it is built. ``length`` is H in tokens, ``[CLS]`` and ``[SEP]`` too."""

    groups: list[tuple[Parent, list[str]]]
    length: int
