"""A window's answer by cell, for models that are written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from consumer.extraction.window import Cells

if TYPE_CHECKING:
    from collections.abc import Mapping


def cells_of(logits: Mapping[tuple[int, int], float]) -> Cells:
    """Build Cells from ``{(row, column): logit}``."""
    keys = np.array(list(logits), dtype=np.int32).reshape(-1, 2)
    return Cells(keys[:, 0], keys[:, 1], np.array(list(logits.values()), dtype=np.float32))
