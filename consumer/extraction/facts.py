"""What comes out of an extraction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """One element of a path. Offsets are Unicode code points of the caller's text, half-open.

    Classification facts and implicit aspects have neither span nor offsets. ``score`` is the mean of the sigmoids of
    the span, head and tail cells, rounded to 4 decimals.
    """

    type: str
    span: str | None
    start: int | None
    end: int | None
    score: float


Path = tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Extracted:
    """The outcome of one task on one text. ``warnings`` name what was skipped or capped, without review text."""

    paths: tuple[Path, ...]
    warnings: tuple[str, ...]
    model_calls: int
    """Windows that were answered by the model."""
