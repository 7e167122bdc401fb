"""How much one event may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """Bounds on one task of one event. Beyond them the event is bad input, except ``facts``, which is a visible cap."""

    text_chars: int = 50_000
    """Unicode code points of a review."""
    types_per_level: int = 512
    """Types under one parent. The whole tree may hold ``types_per_level * schema_depth``."""
    schema_depth: int = 8
    facts: int = 1000
    """Facts accepted on one level, and paths reported in all. What exceeds it is dropped with a warning."""
    model_calls: int = 4096
    """Windows over all levels."""
