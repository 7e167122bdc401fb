"""Runs a written SavedModel on real prompts and compares it with the numpy reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tensorflow as tf

from consumer.batching.policy import padded_length
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits, Task
from consumer.model.graph import DENSE, SERVING
from consumer.model.reference import reference_logits
from consumer.serving.tensors import legal_cells, pad

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from consumer.extraction.window import Window
    from consumer.model.checkpoint import Checkpoint
    from consumer.model.encoder import Precision
    from consumer.serving.bundle import Bundle
    from consumer.serving.tensors import GraphContract


# Real prompts for the self-check and the warm-up, made by the engine that will make them in production.

_TEXT = "屏幕很清楚，充电也快，就是有点重，客服回复得慢。"
_ASPECTS = Task("aspects", "extract", {"属性词": None, "正向情感(情感词)": None, "负向情感(情感词)": None}, "#")
_SENTIMENT = Task("sentiment", "classify", {"正向情感": None, "负向情感": None})


def sample_windows(bundle: Bundle) -> tuple[Window, ...]:
    """An extraction and a classification window, of different lengths, well below 64 tokens."""
    engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
    return tuple(engine.start(_TEXT, task).windows[0] for task in (_ASPECTS, _SENTIMENT))


TOLERANCE: Final[dict[Precision, float]] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""Largest difference of a logit allowed, in standard deviations of the window's logits (which spread from 10 to 50).

float32 is at 1e-5 for a model of the published size; a wrong weight, sign or switch shifts logits by whole deviations.
"""


class SelfCheckError(Exception):
    """The written model does not compute what the checkpoint says."""


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
    longest = padded_length(max(window.length for window in windows))
    references = [reference_logits(checkpoint, window) for window in windows]
    worst = relative = 0.0
    runs = [([index], windows[index].length) for index in range(len(windows))]
    for indexes, length in [*runs, (list(range(len(windows))), longest)]:
        inputs = {
            name: tf.constant(array) for name, array in pad([windows[i] for i in indexes], length, agreed.pad).items()
        }
        dense, compact = signatures[DENSE](**inputs), signatures[SERVING](**inputs)
        for outputs in (dense, compact):
            if (outputs["contract"].numpy() != agreed.contract).any():
                raise SelfCheckError(
                    f"the contract is {outputs['contract'].numpy().ravel()[0]}, expected {agreed.contract}"
                )
        for row, index in enumerate(indexes):
            window, expected = windows[index], references[index]
            logits = dense["logits"].numpy()[row, : window.length, : window.length]
            error = float(np.abs(logits - expected).max())
            if not np.isfinite(logits).all():
                error = float("inf")
            deviations = error / max(1.0, float(expected.std()))
            worst, relative = max(worst, error), max(relative, deviations)
            if deviations > TOLERANCE[precision]:
                raise SelfCheckError(
                    f"logits differ from the reference by {error:.3g} ({deviations:.2g} standard deviations; "
                    f"{precision} may differ by {TOLERANCE[precision]:.2g}) at {len(indexes)} x {length} tokens"
                )
            _compare_cells(compact, row, logits, window, agreed)
    return SelfCheck(len(windows), worst, relative, TOLERANCE[precision])


def _compare_cells(
    compact: dict[str, Any], row: int, logits: NDArray[np.float32], window: Window, agreed: GraphContract
) -> None:
    """The two signatures are two runs: a logit within rounding of 0 may be a cell in one and none in the other."""
    margin = 1e-5 * max(1.0, float(np.abs(logits).max()))
    found = _unpack(compact, row)
    expected = legal_cells(window, logits, agreed)
    wanted = dict(
        zip(zip(expected.rows.tolist(), expected.columns.tolist(), strict=True), expected.logits, strict=True)
    )
    if int(compact["count"].numpy()[row, 0]) > compact["cells"].shape[1]:
        wanted = {cell: wanted.get(cell, np.float32(np.nan)) for cell in found}
    strays = [cell for cell in found.keys() ^ wanted.keys() if abs(logits[cell]) > margin]
    strays += [cell for cell in found.keys() & wanted.keys() if not abs(found[cell] - wanted[cell]) <= margin]
    if strays:
        raise SelfCheckError(f"{SERVING} and {DENSE} disagree on {len(strays)} cells, for example {strays[0]}")


def _unpack(compact: dict[str, Any], row: int) -> dict[tuple[int, int], np.float32]:
    packed, scores = compact["cells"].numpy()[row], compact["scores"].numpy()[row]
    used = min(int(compact["count"].numpy()[row, 0]), len(packed))
    return {
        (int(cell) >> 16, int(cell) & 0xFFFF): score for cell, score in zip(packed[:used], scores[:used], strict=True)
    }
