"""The graph computes what the numpy reference computes, for every switch, padded or not, alone or in a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.serving.tensors import pad

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from consumer.extraction.window import Window

pytestmark = pytest.mark.model

BRANCHES: dict[str, dict[str, Any]] = {
    "clamped": {},
    "log_buckets": {"position_buckets": 16, "max_relative_positions": 48, "pos_att_type": "c2p|p2c"},
    "own_keys": {"position_buckets": -1, "max_relative_positions": 12, "share_att_key": False},
    "absolute_and_types": {
        "position_buckets": -1,
        "pos_att_type": ["c2p"],
        "norm_rel_ebd": "none",
        "position_biased_input": True,
        "type_vocab_size": 2,
    },
    "grouped_convolution": {
        "pos_att_type": ["p2c"],
        "share_att_key": False,
        "conv_kernel_size": 3,
        "conv_groups": 2,
        "conv_act": "gelu",
        "embedding_size": 10,
        "type_vocab_size": 3,
    },
    "wide_convolution": {"pos_att_type": [], "conv_kernel_size": 5, "hidden_act": "relu", "num_attention_heads": 1},
}


@pytest.fixture(scope="module", params=list(BRANCHES))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, micro: Any, agreed: Any) -> Any:
    """The checkpoint and the graph of one branch."""
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.graph import RexUniNLU

    folder: Path = micro.write(tmp_path_factory.mktemp("branch"), seed=3, **BRANCHES[request.param])
    checkpoint = load_checkpoint(folder)
    return checkpoint, RexUniNLU(checkpoint, agreed(256))


@pytest.fixture(scope="module")
def windows(micro: Any) -> list[Window]:
    """Several prefixes, one, a long text, and a text that is almost empty."""
    return [
        micro.prompt([(2, (3, 1, 2)), (5, (1, 4))], text=30, seed=1),
        micro.prompt([(0, (2, 2))], text=7, seed=2),
        micro.prompt([(1, (1,))], text=60, seed=3),
        micro.prompt([(0, (1,))], text=0, seed=4),
    ]


def dense(module: Any, inputs: dict[str, Any]) -> Any:
    import tensorflow as tf

    return module.dense(**{name: tf.constant(array) for name, array in inputs.items()})["logits"].numpy()


def test_logits_are_the_references(built: Any, windows: list[Window]) -> None:
    """Every cell of every window is within 5e-4, unpadded and in one padded batch."""
    from consumer.model.reference import reference_logits

    checkpoint, module = built
    batch = dense(module, pad(windows, 96, 0))
    for row, window in enumerate(windows):
        expected = reference_logits(checkpoint, window)
        assert expected.std() > 1, "logits too flat to tell anything"
        alone = dense(module, pad([window], window.length, 0))[0]
        np.testing.assert_allclose(alone, expected, rtol=0, atol=5e-4)
        np.testing.assert_allclose(batch[row, : window.length, : window.length], expected, rtol=0, atol=5e-4)


def test_a_batch_of_one_and_a_batch_of_sixteen_agree(built: Any, windows: list[Window]) -> None:
    """The rows of a batch do not see one another."""
    _, module = built
    sixteen = (windows * 4)[:16]
    batch = dense(module, pad(sixteen, 80, 0))
    for row, window in enumerate(sixteen):
        alone = dense(module, pad([window], 80, 0))[0]
        kept = slice(0, window.length)
        np.testing.assert_allclose(batch[row, kept, kept], alone[kept, kept], rtol=0, atol=1e-4)


@pytest.mark.parametrize("filler", ["first_element", "largest", "zeros"])
def test_what_stands_behind_the_length_changes_nothing(built: Any, windows: list[Window], filler: str) -> None:
    """A server that pads with each tensor's first element, or anything else, gets the same answers."""
    _, module = built
    inputs = pad(windows, 96, 0)
    expected = dense(module, inputs)
    for name in ("input_ids", "segment", "position_ids"):
        for row, window in enumerate(windows):
            value = {"first_element": inputs[name][0, 0], "largest": 43, "zeros": 0}[filler]
            inputs[name][row, window.length :] = value
    found = dense(module, inputs)
    for row, window in enumerate(windows):
        kept = slice(0, window.length)
        np.testing.assert_allclose(found[row, kept, kept], expected[row, kept, kept], rtol=0, atol=1e-4)


def test_every_segment_boundary_matters(built: Any, micro: Any) -> None:
    """The reference really depends on the mask: with other segments the logits are others."""
    from consumer.model.reference import reference_logits

    checkpoint, module = built
    window = micro.prompt([(1, (2, 2)), (2, (3,))], text=9, seed=5)
    one_prefix = type(window)(window.input_ids, window.position_ids, window.segment % 256, window.text_start)
    assert np.abs(reference_logits(checkpoint, window) - reference_logits(checkpoint, one_prefix)).max() > 0.01
    found = dense(module, pad([one_prefix], one_prefix.length, 0))[0]
    np.testing.assert_allclose(found, reference_logits(checkpoint, one_prefix), rtol=0, atol=5e-4)


def test_the_mask_of_the_specification(micro: Any) -> None:
    """Different prefixes do not see each other, nor do the types of one prefix; all else sees all."""
    from consumer.model.reference import visible

    window = micro.prompt([(1, (1, 1)), (1, (1,))], text=2)
    kinds = "C pp aa bb qq cc S x x S".replace(" ", "")
    hidden = {("p", "q"), ("p", "c"), ("a", "q"), ("a", "c"), ("b", "q"), ("b", "c"), ("a", "b")}
    assert len(kinds) == window.length
    expected = [[(a, b) not in hidden and (b, a) not in hidden for b in kinds] for a in kinds]
    np.testing.assert_array_equal(visible(window.segment), expected)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_only_the_matrix_products_of_the_encoder_are_narrow(
    precision: str, tmp_path: Path, micro: Any, agreed: Callable[[int], Any]
) -> None:
    """Embeddings, positions, attention, norms, biases and the head keep float32; logits are close, not equal."""
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.graph import RexUniNLU
    from consumer.model.reference import reference_logits

    checkpoint = load_checkpoint(micro.write(tmp_path, seed=3))
    module = RexUniNLU(checkpoint, agreed(256), precision)  # type: ignore[arg-type]
    narrow = {variable.name.split(":")[0] for variable in module.variables if variable.dtype.name == precision}
    assert narrow == {"weight"}
    assert module.encoder.head.weight.dtype.name == "float32"
    assert module.encoder.words.dtype.name == "float32"
    window = micro.prompt([(2, (3, 1, 2))], text=30, seed=1)
    expected = reference_logits(checkpoint, window)
    error = np.abs(dense(module, pad([window], 64, 0))[0, : window.length, : window.length] - expected).max()
    assert 1e-4 < error < 0.1 * expected.std()
