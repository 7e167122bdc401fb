"""Graph and numpy reference against logits that the public implementation computed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.batching.queue import padded_length
from consumer.extraction.window import Window
from consumer.serving.tensors import GraphContract, pad

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.model

VARIANTS = (
    "1-log-buckets",
    "2-separate-keys-no-buckets",
    "3-conv-gelu",
    "4-abs-pos-types-c2p-only",
    "5-conv-tanh-p2c-only",
)
LIMIT = 5e-4


def window_of(case: dict[str, Any]) -> Window:
    segment = np.concatenate([np.full(count, p * 256 + t, np.int32) for p, t, count in case["mask_segments"]])
    ids, positions = (np.array(case[name], np.int32) for name in ("input_ids", "position_ids"))
    return Window(ids, positions, segment, case["n_hint"])


def build(folder: Path) -> tuple[Any, Any]:
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.graph import RexUniNLU

    checkpoint = load_checkpoint(folder)
    v = checkpoint.config.vocab_size
    return checkpoint, RexUniNLU(checkpoint, GraphContract(1, 256, 0, v + 1, frozenset((v + 2, v + 3))))


def dense(module: Any, windows: list[Window], length: int) -> Any:
    import tensorflow as tf

    inputs = pad(windows, length, 0)
    return module.dense(**{name: tf.constant(array) for name, array in inputs.items()})["logits"].numpy()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_logit_of_the_variants(golden: Path, variant: str) -> None:
    """Each configuration branch, padded and not, to 5e-4; the numpy reference as well."""
    from consumer.model.reference import reference_logits

    checkpoint, module = build(golden / "variants" / variant)
    cases = [json.loads(line) for line in (golden / "variants.jsonl").read_text().splitlines()]
    cases = [case for case in cases if case["model"] == f"variants/{variant}"]
    assert len(cases) == 2
    windows = [window_of(case) for case in cases]
    together = dense(module, windows, 96)
    for row, (case, window) in enumerate(zip(cases, windows, strict=True)):
        expected = np.array(case["logits"])
        kept = slice(0, window.length)
        for found in (
            dense(module, [window], window.length)[0],
            together[row, kept, kept],
            reference_logits(checkpoint, window),
        ):
            np.testing.assert_allclose(found, expected, rtol=0, atol=LIMIT)


@pytest.fixture(scope="module")
def tiny(golden: Path) -> Any:
    return build(golden / "tiny")


def calls(golden: Path) -> Iterator[tuple[dict[str, Any], Window]]:
    for line in (golden / "cases.jsonl").open():
        for call in json.loads(line)["calls"]:
            if "mask_segments" in call:
                yield call, window_of(call)


def test_every_call_of_the_tiny_checkpoint(golden: Path, tiny: Any) -> None:
    """All positives and probes to 5e-4, and not one cell on the other side of zero, padded as in production."""
    _, module = tiny
    seen = 0
    for call, window in calls(golden):
        logits = dense(module, [window], padded_length(window.length))[0, : window.length, : window.length]
        for row, column, logit in (*call["positives"], *call["probe"]):
            assert abs(logits[row, column] - logit) < LIMIT
        assert (logits > 0).sum() == call["n_positive"]
        seen += 1
    assert seen > 150


def test_a_batch_of_sixteen_golden_windows(golden: Path, tiny: Any) -> None:
    """Sixteen windows of different lengths in one batch give what each gives alone, to 1e-4."""
    _, module = tiny
    windows = [window for _, window in calls(golden) if window.length <= 128][:16]
    assert len({window.length for window in windows}) > 8
    together = dense(module, windows, 128)
    for row, window in enumerate(windows):
        kept = slice(0, window.length)
        alone = dense(module, [window], window.length)[0]
        np.testing.assert_allclose(together[row, kept, kept], alone, rtol=0, atol=1e-4)
