"""What the task runner hands to the event processor for one task of one event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.codecs.outputs import ModelUsed
    from consumer.extraction.task import Extracted


@dataclass(frozen=True, slots=True)
class Inference:
    """What a task found, and what it took.

    ``queued`` (waiting for a batch) and ``in_model`` are seconds, ``overflowed`` windows were repeated on the dense
    signature, ``restarts`` attempts before this one met another model version.
    """

    extracted: Extracted
    model: ModelUsed
    queued: float
    in_model: float
    overflowed: int
    restarts: int
