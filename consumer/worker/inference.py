"""What the task runner hands to the event processor for one task of one event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.codecs.outputs import ModelUsed
    from consumer.extraction.task import Extracted

VERSION_CHANGED = "model_version_changed: started again"


@dataclass(slots=True, eq=False)
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

    @property
    def warnings(self) -> list[str]:
        """What the result says beside the extraction's own warnings."""
        warnings = []
        if self.overflowed:
            warnings.append(f"cells_overflowed: {self.overflowed} windows repeated on the dense signature")
        if self.restarts:
            warnings.append(VERSION_CHANGED)
        return warnings
