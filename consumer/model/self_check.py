"""Runs a written SavedModel on real prompts and compares it with the numpy reference.

The prompts are made by the engine that will make them in production; the warm-up requests repeat them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import tensorflow as tf

from consumer.batching.queue import padded_length
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits, Task
from consumer.model.graph import DENSE, SERVING, unpacked
from consumer.model.reference import reference_logits
from consumer.serving.tensors import GraphContract, legal_cells, pad

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from consumer.extraction.window import Cells, Window
    from consumer.model.checkpoint import Checkpoint
    from consumer.model.encoder import Precision
    from consumer.serving.bundle import Bundle

TOLERANCE: Final[dict[Precision, float]] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""Largest difference of a logit allowed, in standard deviations of the window's logits (which spread from 10 to 50).

float32 is at 1e-5 for a model of the published size; a wrong weight, sign or switch shifts logits by whole deviations.
"""


class SelfCheckError(Exception):
    """The written model computes other logits than the numpy reference with the same checkpoint."""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What was found. ``max_error`` is the largest difference of a logit, ``relative_error`` in standard deviations."""

    windows: int
    max_error: float
    relative_error: float
    tolerance: float


def self_check(
    saved_model: Path,
    checkpoint: Checkpoint,
    windows: Sequence[Window],
    *,
    agreed: GraphContract,
    precision: Precision,
) -> SelfCheck:
    """Run every window alone and unpadded, and all of them in one padded batch. Raises SelfCheckError."""
    signatures = tf.saved_model.load(str(saved_model)).signatures
    references = [reference_logits(checkpoint, window) for window in windows]
    worst = relative = 0.0
    everything = list(range(len(windows)))
    for indexes in [*([index] for index in everything), everything]:
        batch = [windows[index] for index in indexes]
        longest = max(window.length for window in batch)
        length = longest if len(batch) == 1 else padded_length(longest)
        inputs = {name: tf.constant(array) for name, array in pad(batch, length, agreed.pad).items()}
        dense, compact = (
            {name: tensor.numpy() for name, tensor in signatures[signature](**inputs).items()}
            for signature in (DENSE, SERVING)
        )
        for outputs in (dense, compact):
            if (outputs["contract"] != agreed.contract).any():
                raise SelfCheckError(f"the contract is {outputs['contract'].ravel()[0]}, expected {agreed.contract}")
        for row, (window, expected, cells) in enumerate(
            zip(batch, [references[index] for index in indexes], unpacked(compact), strict=True)
        ):
            logits = dense["logits"][row, : window.length, : window.length]
            error = float(np.abs(logits - expected).max()) if np.isfinite(logits).all() else math.inf
            deviations = error / max(1.0, float(expected.std()))
            worst, relative = max(worst, error), max(relative, deviations)
            if deviations > TOLERANCE[precision]:
                raise SelfCheckError(
                    f"logits differ from the reference by {error:.3g} ({deviations:.2g} standard deviations; "
                    f"{precision} may differ by {TOLERANCE[precision]:.2g}) at {len(indexes)} x {length} tokens"
                )
            overflowed = int(compact["count"][row, 0]) > agreed.cells_per_window
            _compare_cells(cells, legal_cells(window, logits, agreed), logits, overflowed=overflowed)
    return SelfCheck(len(windows), worst, relative, TOLERANCE[precision])


_TEXT = "屏幕很清楚，充电也快，就是有点重，客服回复得慢。"
_ASPECTS = Task("aspects", "extract", {"属性词": None, "正向情感(情感词)": None, "负向情感(情感词)": None}, "#")
_SENTIMENT = Task("sentiment", "classify", {"正向情感": None, "负向情感": None})


def sample_windows(bundle: Bundle) -> tuple[Window, ...]:
    """An extraction and a classification window, of different lengths, well below 64 tokens."""
    engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
    return tuple(engine.start(_TEXT, task).windows[0] for task in (_ASPECTS, _SENTIMENT))


def _compare_cells(cells: Cells, legal: Cells, logits: NDArray[np.float32], *, overflowed: bool) -> None:
    """The two signatures are two runs: a logit within rounding of 0 may be a cell in one and none in the other."""
    margin = 1e-5 * max(1.0, float(np.abs(logits).max()))
    found, wanted = (
        dict(zip(zip(one.rows.tolist(), one.columns.tolist(), strict=True), one.logits, strict=True))
        for one in (cells, legal)
    )
    if overflowed:
        wanted = {cell: wanted.get(cell, np.float32(np.nan)) for cell in found}
    strays = [cell for cell in found.keys() ^ wanted.keys() if abs(logits[cell]) > margin]
    strays += [cell for cell in found.keys() & wanted.keys() if not abs(found[cell] - wanted[cell]) <= margin]
    if strays:
        raise SelfCheckError(f"{SERVING} and {DENSE} disagree on {len(strays)} cells, for example {strays[0]}")
