"""A checkpoint in this process answers as a server with its export would."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.batching.queue import padded_length
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits, Task
from consumer.serving.protocol import Failure, ServingError

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.extraction.window import Window

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def demo(demo_model: Path) -> Any:
    from consumer.model.runner import CheckpointModel

    return CheckpointModel(demo_model)


@pytest.fixture(scope="module")
def random_model(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Random weights: half of all cells are positive, so a text of 60 words has far more than 256."""
    from consumer.model.runner import CheckpointModel

    folder: Path = micro.write_with_tokenizer(tmp_path_factory.mktemp("random"), seed=9)
    return CheckpointModel(folder)


def predict(model: Any, windows: list[Window], length: int, timeout: float = 60.0) -> Any:
    return asyncio.run(model.predict(windows, length, timeout))


def test_an_extraction_runs_to_its_end(demo: Any) -> None:
    """Two levels of a review through the engine and the in-process model find an aspect with a praise."""
    opinions = {"正向情感(情感词)": None, "负向情感(情感词)": None}
    engine = Engine(demo.bundle.tokenizer, demo.bundle.limits, ExtractionLimits())
    extraction = engine.start("味道很香，很喜欢。", Task("features", "extract", {"属性词": opinions}, "#"))
    while not extraction.finished:
        windows = list(extraction.windows)
        extraction.advance(predict(demo, windows, max(padded_length(w.length) for w in windows)).cells)
    paths = [[(fact.type, fact.span) for fact in path] for path in extraction.result().paths]
    assert [("属性词", "味道"), ("正向情感(情感词)", "香")] in [
        [first, (kind, span.removeprefix("很") if span else span)] for first, (kind, span) in paths
    ]


def test_the_answer_names_the_model(demo: Any, demo_model: Path) -> None:
    """Name, version and signature are those of the checkpoint; nothing overflowed."""
    import hashlib

    engine = Engine(demo.bundle.tokenizer, demo.bundle.limits, ExtractionLimits())
    window = engine.start("发货快。", Task("sentiment", "classify", {"好评": None, "差评": None})).windows[0]
    answer = predict(demo, [window], 40)
    sha256 = hashlib.sha256((demo_model / "model.safetensors").read_bytes()).hexdigest()
    assert (answer.model_name, answer.model_version) == (demo_model.name, sha256[:12])
    assert (answer.signature, answer.overflowed) == ("serving_default", ())
    assert answer.seconds > 0
    assert len(answer.cells[0].rows) >= 5, "the marker's cells are there whatever their sign"


def test_a_window_with_more_cells_than_fit_is_repeated(random_model: Any, micro: Any, agreed: Any) -> None:
    """Its cells come from the dense signature, complete; its neighbour's from the compact one."""
    import tensorflow as tf

    from consumer.serving.tensors import legal_cells, pad

    windows = [micro.prompt(text=4, seed=1), micro.prompt(text=60, seed=2)]
    answer = predict(random_model, windows, 72)
    assert answer.overflowed == (1,)
    assert len(answer.cells[1].rows) > 256
    for window, cells in zip(windows, answer.cells, strict=True):
        inputs = {name: tf.constant(array) for name, array in pad([window], window.length, 0).items()}
        expected = legal_cells(window, random_model._module.dense(**inputs)["logits"].numpy()[0], agreed(256))
        assert cells.rows.tolist() == expected.rows.tolist()
        assert cells.columns.tolist() == expected.columns.tolist()
        np.testing.assert_allclose(cells.logits, expected.logits, rtol=0, atol=1e-4)


def test_a_batch_that_takes_too_long(demo: Any, micro: Any) -> None:
    """A deadline that has passed is a transient failure, as it is on a server."""
    with pytest.raises(ServingError) as error:
        predict(demo, [micro.prompt(text=3)], 24, timeout=0.0)
    assert (error.value.failure, error.value.code) == (Failure.TRANSIENT, "DEADLINE_EXCEEDED")


def test_a_window_that_the_graph_refuses(random_model: Any, micro: Any) -> None:
    """An id without an embedding is the batch's fault, as it is on a server."""
    window = micro.prompt(text=3)
    window.input_ids[2] = 99
    with pytest.raises(ServingError) as error:
        predict(random_model, [window], 24)
    assert (error.value.failure, error.value.code) == (Failure.BATCH_FAULT, "INVALID_ARGUMENT")


def test_it_is_ready_and_closes(random_model: Any) -> None:
    """The model is loaded as soon as it exists."""
    assert asyncio.run(random_model.ready())
    asyncio.run(random_model.close())
