"""The unit of model work: one hint chunk over one piece of text, and the logits that come back for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


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

    @classmethod
    def of(cls, cells: Mapping[tuple[int, int], float]) -> Cells:
        """Build from ``{(row, column): logit}``."""
        keys = np.array(list(cells), dtype=np.int32).reshape(-1, 2)
        return cls(keys[:, 0], keys[:, 1], np.array(list(cells.values()), dtype=np.float32))
