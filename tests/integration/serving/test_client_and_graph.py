"""The client against a served graph with the real selection of cells."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.config.tree import ModelConfig
from consumer.extraction.window import Window
from consumer.serving.client import TfServingClient
from consumer.serving.protocol import Answer, Failure, ServingError
from consumer.serving.tensors import GraphContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.model

PAD, TYPE, CLASSIFY, MULTICLASSIFY = 0, 91, 92, 93


class BundleOf:
    """Stands in for a Bundle: the client needs ids and numbers only."""

    def __init__(self, cells_per_window: int, contract: int = 77) -> None:
        self.contract = contract
        self.cells_per_window = cells_per_window
        self.name = "of this test"
        self.tokenizer: Any = self
        self.pad, self.type, self.classify, self.multiclassify = PAD, TYPE, CLASSIFY, MULTICLASSIFY


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serves ``narrow`` (K = 4) and ``wide`` (K = 256): the same waves for logits, so the same cells."""
    tf = pytest.importorskip("tensorflow", reason="the local model server needs the [model] extra (TensorFlow)")
    from consumer.local.catalog import Catalog
    from consumer.local.model_folders import find_models
    from consumer.local.model_server import ModelServer
    from consumer.local.saved_model import SavedModel
    from consumer.model.graph import roles, select

    names = (("input_ids", None), ("segment", None), ("position_ids", None), ("length", 1), ("text_start", 1))
    specs = [tf.TensorSpec([None, size], tf.int32, name) for name, size in names]

    def save(folder: Path, cells_per_window: int) -> None:
        agreed = GraphContract(77, cells_per_window, PAD, TYPE, frozenset((CLASSIFY, MULTICLASSIFY)))

        def waves(input_ids: Any, segment: Any, position_ids: Any, length: Any, text_start: Any) -> Any:
            tokens = roles(input_ids, tf.cast(segment, tf.float32), length, text_start, agreed)
            phase = tf.cast(position_ids, tf.float32)
            return tf.sin(phase[:, :, None] * 1.7 + phase[:, None, :] * 2.3), tokens

        def compact(*inputs: Any) -> dict[str, Any]:
            logits, tokens = waves(*inputs)
            cells, scores, count = select(logits, tokens, cells_per_window)
            return {"cells": cells, "scores": scores, "count": count, "contract": tf.fill(tf.shape(count), 77)}

        def dense(*inputs: Any) -> dict[str, Any]:
            logits, _ = waves(*inputs)
            return {"logits": logits, "contract": tf.fill(tf.shape(inputs[3]), 77)}

        signatures = {
            "serving_default": tf.function(compact, input_signature=specs).get_concrete_function(),
            "dense": tf.function(dense, input_signature=specs).get_concrete_function(),
        }
        tf.saved_model.save(tf.Module(), str(folder / "1"), signatures)

    models = tmp_path_factory.mktemp("graphs")
    save(models / "narrow", 4)
    save(models / "wide", 256)
    server = ModelServer(Catalog(find_models(models), lambda folder: SavedModel(folder, 2)), cpus=2)
    try:
        yield server.start("127.0.0.1", 0, 3600)
    finally:
        server.stop()


def window(*text: int) -> Window:
    hint = [2, 90, TYPE, 5, TYPE, 6, 3]
    ids = np.array([*hint, *text, 3], np.int32)
    segment = np.array([0, 256, 257, 257, 258, 258, 0] + [0] * (len(text) + 1), np.int32)
    return Window(ids, np.arange(len(ids), dtype=np.int32), segment, len(hint))


WINDOWS = [window(8, 9, 8), window(CLASSIFY, 9), window(MULTICLASSIFY, 8, 8, 9, 9, 8), window(*[8] * 9), window()]


def ask(address: str, model: str, bundle: Any, windows: list[Window] = WINDOWS) -> Answer:
    async def scenario() -> Answer:
        client = TfServingClient(ModelConfig(target=address, name=model), bundle)
        try:
            assert await client.ready()
            return await client.predict(windows, 24, 60.0)
        finally:
            await client.close()

    return asyncio.run(scenario())


def test_a_dense_repeat_gives_the_cells_that_more_room_would(address: str) -> None:
    """Windows that overflow K = 4 get, cell for cell and in order, what the graph finds with K = 256."""
    wide = ask(address, "wide", BundleOf(256))
    narrow = ask(address, "narrow", BundleOf(4))
    assert wide.overflowed == ()
    counts = [len(cells.rows) for cells in wide.cells]
    assert narrow.overflowed == tuple(index for index, count in enumerate(counts) if count > 4) != ()
    assert min(counts) <= 4
    for found, expected in zip(narrow.cells, wide.cells, strict=True):
        assert found.rows.tolist() == expected.rows.tolist()
        assert found.columns.tolist() == expected.columns.tolist()
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)


def test_batch_and_padding_change_no_cell(address: str) -> None:
    """Each window alone, gets the cells that it gets in a batch."""
    together = ask(address, "wide", BundleOf(256))
    for index, one in enumerate(WINDOWS):
        alone = ask(address, "wide", BundleOf(256), [one])
        assert alone.cells[0].rows.tolist() == together.cells[index].rows.tolist()
        assert alone.cells[0].columns.tolist() == together.cells[index].columns.tolist()


@pytest.mark.parametrize(
    ("model", "bundle", "code"),
    [
        ("wide", BundleOf(256, contract=78), "CONTRACT"),
        ("wide", BundleOf(4), "ANSWER"),
        ("absent", BundleOf(256), "NOT_FOUND"),
    ],
)
def test_a_model_that_does_not_fit_is_a_deployment_fault(address: str, model: str, bundle: Any, code: str) -> None:
    """Another contract, another K and a model that is not there stop the worker."""

    async def scenario() -> ServingError:
        client = TfServingClient(ModelConfig(target=address, name=model), bundle)
        try:
            assert await client.ready() is (model != "absent")
            with pytest.raises(ServingError) as caught:
                await client.predict(WINDOWS, 24, 60.0)
            return caught.value
        finally:
            await client.close()

    error = asyncio.run(scenario())
    assert (error.failure, error.code) == (Failure.DEPLOYMENT, code)
