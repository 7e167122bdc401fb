"""The module's two signatures agree, and nothing in them is what a GPU would do on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.serving.tensors import legal_cells, pad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.model

K = 16
CLASSIFY = 42
B, L = 3, 37
"""Of the int32 walk; without common factors, so that no other tensor has B * L * L elements by chance."""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory, micro: Any, agreed: Callable[[int], Any]) -> Any:
    """Logarithmic buckets, absolute positions, token types and a convolution: every branch that computes an index."""
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.graph import RexUniNLU

    folder: Path = micro.write(
        tmp_path_factory.mktemp("checkpoint"),
        seed=4,
        position_buckets=16,
        max_relative_positions=48,
        conv_kernel_size=3,
        position_biased_input=True,
        type_vocab_size=2,
    )
    return RexUniNLU(load_checkpoint(folder), agreed(K))


def call(module: Any, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    outputs = getattr(module, signature)(**{name: tf.constant(array) for name, array in inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def test_cells_are_the_legal_cells_of_the_dense_logits(module: Any, micro: Any, agreed: Any) -> None:
    """Both signatures tell the same story, overflow included, and say which contract they were exported with."""
    windows = [
        micro.prompt([(0, (2, 1))], text=3, seed=1),
        micro.prompt([(1, (1, 1)), (0, (2,))], text=2, marker=CLASSIFY, seed=2),
        micro.prompt([(0, (1,))], text=0, seed=3),
        micro.prompt([(0, (1, 2, 1))], text=40, seed=4),
    ]
    inputs = pad(windows, 56, 0)
    compact, dense = call(module, "serving_default", inputs), call(module, "dense", inputs)
    assert compact["contract"].tolist() == dense["contract"].tolist() == [[-7]] * 4
    assert compact["count"][3, 0] > K, "the long text is meant to overflow"
    for row, window in enumerate(windows):
        expected = legal_cells(window, dense["logits"][row], agreed(K))
        found = expected.rows.astype(np.int32) << 16 | expected.columns
        kept = min(K, len(found))
        assert compact["count"][row, 0] == len(found)
        assert compact["cells"][row, :kept].tolist() == found[:K].tolist()
        assert not compact["cells"][row, kept:].any()
        np.testing.assert_allclose(compact["scores"][row, :kept], expected.logits[:K], rtol=0, atol=1e-5)


def test_the_marker_alone_costs_no_text(module: Any, micro: Any) -> None:
    """A classification window lists its 1 + 2T cells first: (H, H), (H, t) ascending, (t, H) ascending."""
    window = micro.prompt([(0, (1, 2))], text=5, marker=CLASSIFY, seed=6)
    cells = call(module, "serving_default", pad([window], 40, 0))["cells"][0]
    marker, types = window.text_start, np.flatnonzero(window.input_ids == 41)
    pairs = [(marker, marker), *((marker, t) for t in types), *((t, marker) for t in types)]
    assert [(int(cell) >> 16, int(cell) & 0xFFFF) for cell in cells[: len(pairs)]] == pairs


def test_the_same_request_gives_the_same_bytes(module: Any, micro: Any) -> None:
    """Cells and their order do not depend on timing."""
    inputs = pad([micro.prompt([(0, (1, 2))], text=30, seed=seed) for seed in range(8)], 48, 0)
    first = call(module, "serving_default", inputs)
    for _ in range(3):
        again = call(module, "serving_default", inputs)
        assert again["cells"].tobytes() == first["cells"].tobytes()
        assert again["count"].tobytes() == first["count"].tobytes()


def test_an_id_without_an_embedding_is_refused(module: Any, micro: Any) -> None:
    """A token that the model does not have is an error of that request, not a wrong answer."""
    import tensorflow as tf

    inputs = pad([micro.prompt(text=3)], 24, 0)
    inputs["input_ids"][0, 2] = 44
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(module, "serving_default", inputs)


def int32_of_pairs(function: Callable[..., Any], shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """Operations that touch an int32 tensor of B * L * L elements or more, but for the cast that makes an index and
    the gather that uses it.

    Shapes are symbolic in the graph, so the whole graph is run with tensors of the given shapes (ones) and every int32
    tensor that an operation reads or writes is measured.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec([None] * len(shape), tf.int32) for shape in shapes]
    wrapped = tf.compat.v1.wrap_function(function, specs)
    touched = [
        (operation, tensor)
        for operation in wrapped.graph.get_operations()
        for tensor in (*operation.inputs, *operation.outputs)
        if tensor.dtype == tf.int32 and operation.type != "Placeholder"
    ]
    sizes = wrapped.prune(wrapped.inputs[: len(shapes)], [tf_size(wrapped.graph, tensor) for _, tensor in touched])(
        *(tf.ones(shape, tf.int32) for shape in shapes)
    )
    return sorted(
        {
            f"{operation.type} {operation.name}"
            for (operation, tensor), size in zip(touched, sizes, strict=True)
            if size.numpy() >= B * L * L and not _makes_or_uses_an_index(operation, tensor)
        }
    )


def tf_size(graph: Any, tensor: Any) -> Any:
    import tensorflow as tf

    with graph.as_default():
        return tf.size(tensor)


def _makes_or_uses_an_index(operation: Any, tensor: Any) -> bool:
    if operation.type == "Cast":
        return tensor is operation.outputs[0]
    return operation.type == "GatherV2" and tensor is operation.inputs[1]


SHAPES = [(B, L), (B, L), (B, L), (B, 1), (B, 1)]


@pytest.mark.parametrize("signature", ["serving_default", "dense"])
def test_no_int32_arithmetic_on_pairs_of_tokens(module: Any, signature: str) -> None:
    """TensorFlow would keep such tensors in host memory and copy them to the GPU at every call."""
    assert int32_of_pairs(getattr(module, signature).python_function, SHAPES) == []


def test_the_walk_finds_int32_arithmetic() -> None:
    """The same walk names an index that is computed in int32, and lets its float32 twin pass."""
    import tensorflow as tf

    def narrow(positions: Any, table: Any) -> Any:
        index = tf.clip_by_value(positions[:, :, None] - positions[:, None, :], 0, 1)
        return tf.gather(tf.cast(table, tf.float32), index, axis=1, batch_dims=1)

    def wide(positions: Any, table: Any) -> Any:
        real = tf.cast(positions, tf.float32)
        index = tf.clip_by_value(real[:, :, None] - real[:, None, :], 0.0, 1.0)
        return tf.gather(tf.cast(table, tf.float32), tf.cast(index, tf.int32), axis=1, batch_dims=1)

    kinds = {entry.split(" ")[0] for entry in int32_of_pairs(narrow, [(B, L), (B, 2)])}
    assert kinds == {"Sub", "Minimum", "Maximum"}
    assert int32_of_pairs(wide, [(B, L), (B, 2)]) == []
