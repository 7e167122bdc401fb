"""An exported version is complete, loads anywhere, was checked, and appears all at once or not at all."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.batching.queue import PADDED_LENGTHS
from consumer.config.tree import Config, ModelConfig
from consumer.serving.bundle import load_bundle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model

STOCK_OPERATIONS = """
    AddN AddV2 Any AssignVariableOp BatchMatMulV2 BiasAdd Cast ConcatV2 Const Cos Cumsum DisableCopyOnRead Equal Erf
    Fill Floor GatherNd GatherV2 Greater GreaterEqual Identity Less LessEqual LogicalAnd LogicalNot LogicalOr MatMul Max
    Maximum Mean MergeV2Checkpoints Minimum Mul Neg NoOp Pack Pad Placeholder Range ReadVariableOp RealDiv Relu Reshape
    ResourceGather RestoreV2 Rsqrt SaveV2 ScatterNd Select SelectV2 Shape ShardedFilename Sin Softmax SquaredDifference
    StatefulPartitionedCall StaticRegexFullMatch StridedSlice StringJoin Sub Tanh Transpose Unpack UnsortedSegmentSum
    VarHandleOp VarIsInitializedOp Where ZerosLike
"""
"""All of them are in TensorFlow 2.17, whose model server has loaded such a model. The newest is DisableCopyOnRead."""

GRAPH_VERSION_OF_2_17 = 1_800
"""A little below TensorFlow 2.17's own graph version: a graph that asks for more cannot be loaded there."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Any:
    """The demo model as version 8 beside an older 007, for workers with batches of 1,024 tokens."""
    from consumer.model.export import export

    output = tmp_path_factory.mktemp("models") / "rexuninlu"
    (output / "007").mkdir(parents=True)
    (output / "lost+found").mkdir()
    return export(demo_model, output, max_tokens=1_024)


def test_the_version_has_every_part(exported: Any) -> None:
    """The report lists exactly the files that are there, with their sizes."""
    assert exported.folder.name == "8"
    files = {str(p.relative_to(exported.folder)): p.stat().st_size for p in exported.folder.rglob("*") if p.is_file()}
    assert dict(exported.files) == files
    assert {
        "saved_model.pb",
        "variables/variables.index",
        "assets/rexstream.json",
        "assets.extra/tf_serving_warmup_requests",
        "bundle/tokenizer.json",
        "bundle/bundle.json",
    } < files.keys()
    assert files["assets.extra/tf_serving_warmup_requests"] < 150_000


def test_nothing_else_is_left_in_the_models_folder(exported: Any) -> None:
    """The draft has become the version; others were not touched."""
    assert sorted(path.name for path in exported.folder.parent.iterdir()) == ["007", "8", "lost+found"]


def test_others_may_read_it(exported: Any) -> None:
    """A server usually runs as another user: folders are not private, as a temporary folder would be."""
    umask_free = stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH
    plain = exported.folder.parent / "007"
    assert exported.folder.stat().st_mode & umask_free == plain.stat().st_mode & umask_free


def test_the_bundle_is_what_a_worker_loads(exported: Any, demo_model: Path) -> None:
    """Its contract is the graph's; checkpoint, limits and K are stamped in bundle and SavedModel alike."""
    from consumer.model.checkpoint import expected_shapes
    from consumer.model.encoder_config import read_config

    bundle = load_bundle(exported.folder / "bundle")
    assert bundle.contract == exported.contract
    stamped = json.loads((exported.folder / "bundle" / "bundle.json").read_text())
    assert stamped.pop("format") == 1
    assert stamped == json.loads((exported.folder / "assets" / "rexstream.json").read_text())
    assert stamped["checkpoint_sha256"] == exported.checkpoint_sha256
    assert stamped["limits"]["max_len"] == 512
    assert stamped["cells_per_window"] == 256
    assert stamped["precision"] == "float32"
    parameters = sum(math.prod(shape) for shape in expected_shapes(read_config(demo_model)).values())
    assert stamped["model"]["parameters"] == exported.parameters == parameters


def test_the_self_check_compared_with_the_reference(exported: Any) -> None:
    """Float32 agrees to a ten-thousandth of the logits' spread, and not by being the same computation."""
    assert 0 < exported.self_check.relative_error < exported.self_check.tolerance == 1e-4
    assert exported.self_check.max_error < 5e-4
    assert exported.self_check.windows == 2


def saved_model(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def test_only_stock_operations_that_tensorflow_2_17_has(exported: Any) -> None:
    """Functions included: nothing that an older server does not know."""
    (graph,) = saved_model(exported.folder).meta_graphs
    used = {node.op for node in graph.graph_def.node}
    for function in graph.graph_def.library.function:
        used |= {node.op for node in function.node_def}
    assert len(used) > 40
    assert used - set(STOCK_OPERATIONS.split()) == set()
    assert graph.graph_def.versions.min_consumer < GRAPH_VERSION_OF_2_17 < graph.graph_def.versions.producer
    assert not graph.graph_def.versions.bad_consumers


def test_the_signatures_are_those_that_clients_call(exported: Any) -> None:
    """Names, types and shapes; the batch is dimension 0 of everything."""
    (graph,) = saved_model(exported.folder).meta_graphs

    def shapes(tensors: Any) -> dict[str, tuple[int, list[int]]]:
        return {name: (t.dtype, [dim.size for dim in t.tensor_shape.dim]) for name, t in tensors.items()}

    int32, float32 = 3, 1
    inputs = {
        "input_ids": (int32, [-1, -1]),
        "segment": (int32, [-1, -1]),
        "position_ids": (int32, [-1, -1]),
        "length": (int32, [-1, 1]),
        "text_start": (int32, [-1, 1]),
    }
    compact, dense = graph.signature_def["serving_default"], graph.signature_def["dense"]
    assert shapes(compact.inputs) == shapes(dense.inputs) == inputs
    assert {name: dtype for name, (dtype, _) in shapes(compact.outputs).items()} == {
        "cells": int32,
        "scores": float32,
        "count": int32,
        "contract": int32,
    }
    assert {name: dtype for name, (dtype, _) in shapes(dense.outputs).items()} == {"logits": float32, "contract": int32}
    assert compact.method_name == dense.method_name == "tensorflow/serving/predict"


def test_the_loaded_model_answers_a_prompt(exported: Any) -> None:
    """What was written finds the obvious aspect of a sentence, in the client's own encoding."""
    import tensorflow as tf

    from consumer.extraction.engine import Engine
    from consumer.extraction.task import ExtractionLimits, Task
    from consumer.serving.tensors import pad

    bundle = load_bundle(exported.folder / "bundle")
    engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
    extraction = engine.start("味道很香，很喜欢。", Task("aspects", "extract", {"属性词": None}, "#"))
    inputs = pad(extraction.windows, 32, bundle.tokenizer.pad)
    serve = tf.saved_model.load(str(exported.folder)).signatures["serving_default"]
    outputs = serve(**{name: tf.constant(array) for name, array in inputs.items()})
    assert outputs["cells"].shape == outputs["scores"].shape == (1, 256)
    assert outputs["contract"].numpy().tolist() == [[exported.contract]]
    count = int(outputs["count"].numpy()[0, 0])
    assert count >= 3, "a span, its head and its tail"
    assert (outputs["scores"].numpy()[0, :count] > 0).all()


def warmup_records(folder: Path) -> list[bytes]:
    import tensorflow as tf

    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    return [record.numpy() for record in tf.data.TFRecordDataset(str(file))]


def test_warm_up_covers_every_shape(exported: Any) -> None:
    """Each padded length, the largest batch that was asked for, and the dense signature; in exact-length bytes."""
    prediction_log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    from tensorflow import make_ndarray

    seen = []
    for record in warmup_records(exported.folder):
        request = prediction_log.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "rexuninlu"
        arrays = {name: make_ndarray(tensor) for name, tensor in request.inputs.items()}
        assert all(array.dtype == np.int32 for array in arrays.values())
        rows, length = arrays["input_ids"].shape
        assert arrays["segment"].shape == arrays["position_ids"].shape == (rows, length)
        assert arrays["length"].shape == arrays["text_start"].shape == (rows, 1)
        assert 0 < arrays["length"].min() <= arrays["length"].max() <= length
        seen.append((request.model_spec.signature_name, rows, length))
    compact = [("serving_default", 1, length) for length in PADDED_LENGTHS]
    assert seen == [*compact, ("serving_default", 2, 512), ("dense", 1, 512)]


def test_the_default_warm_up_holds_the_largest_batch() -> None:
    """16,384 tokens are 32 windows of 512."""
    from consumer.model.export import warmup_shapes

    assert ("serving_default", 32, 512) in set(warmup_shapes(16_384))


def test_a_version_that_exists_is_never_replaced(exported: Any, demo_model: Path) -> None:
    """Servers do not reload a version that they know; the error says what to do."""
    from consumer.model.export import ExportError, export

    before = (exported.folder / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(ExportError, match="leave --version out"):
        export(demo_model, exported.folder.parent, version=8)
    assert (exported.folder / "saved_model.pb").stat().st_mtime_ns == before


def test_a_failing_self_check_leaves_nothing(tmp_path: Path, micro: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance that no computation meets, neither version nor draft nor the new model folder stays."""
    from consumer.model import self_check
    from consumer.model.export import export

    checkpoint = micro.write_with_tokenizer(tmp_path / "checkpoint")
    monkeypatch.setitem(self_check.TOLERANCE, "float32", 1e-12)
    with pytest.raises(self_check.SelfCheckError, match="logits differ from the reference by"):
        export(checkpoint, tmp_path / "new" / "rexuninlu")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_the_self_check_finds_one_wrong_tensor(exported: Any, demo_model: Path) -> None:
    """The written model passes for its own checkpoint, and not for one with a single tensor swapped."""
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.self_check import SelfCheckError, sample_windows, self_check
    from consumer.serving.tensors import GraphContract

    checkpoint, bundle = load_checkpoint(demo_model), load_bundle(exported.folder / "bundle")
    windows, agreed = sample_windows(bundle)[:1], GraphContract.of(bundle)
    self_check(exported.folder, checkpoint, windows, agreed=agreed, precision="float32")
    # Not a bias of the keys: without relative positions it adds the same to all scores of a row, so softmax drops it.
    name = "plm.encoder.layer.0.attention.self.%s_proj.weight"
    swapped = {**checkpoint.weights, name % "key": checkpoint.weights[name % "value"]}
    with pytest.raises(SelfCheckError, match="logits differ"):
        self_check(exported.folder, replace(checkpoint, weights=swapped), windows, agreed=agreed, precision="float32")


def test_another_contract_fails_the_self_check(exported: Any, demo_model: Path) -> None:
    """The written graph must return the hash that the bundle has."""
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.self_check import SelfCheckError, sample_windows, self_check
    from consumer.serving.tensors import GraphContract

    bundle = load_bundle(exported.folder / "bundle")
    agreed = GraphContract.of(bundle)._replace(contract=bundle.contract + 1)
    windows = sample_windows(bundle)[:1]
    with pytest.raises(SelfCheckError, match=f"the contract is {bundle.contract}, expected {bundle.contract + 1}"):
        self_check(exported.folder, load_checkpoint(demo_model), windows, agreed=agreed, precision="float32")


@pytest.mark.parametrize(("names", "following"), [([], 1), (["1", "3", "x4"], 4), (["007"], 8), ([".9", "-5"], 1)])
def test_the_next_version(tmp_path: Path, names: list[str], following: int) -> None:
    """One above the highest folder that a server would take for a version."""
    from consumer.model.export import next_version

    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "99").touch()
    assert next_version(tmp_path) == following
    assert next_version(tmp_path / "absent") == 1


def test_a_bad_checkpoint_creates_no_folder(tmp_path: Path) -> None:
    """Nothing is written before the checkpoint was read and understood."""
    from consumer.model.encoder_config import CheckpointError
    from consumer.model.export import export

    with pytest.raises(CheckpointError):
        export(tmp_path / "absent", tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_check_is_content_with_a_served_export_and_not_with_a_label_that_is_not_there(exported: Any) -> None:
    """Status, both signatures, real windows, and rows that do not match: on the graph itself."""
    from consumer.cli.model_findings import model_findings
    from consumer.local.catalog import Catalog
    from consumer.local.model_folders import find_models
    from consumer.local.model_server import ModelServer
    from consumer.local.saved_model import SavedModel

    catalog = Catalog(find_models(exported.folder.parent), lambda folder: SavedModel(folder, 2))
    server = ModelServer(catalog, cpus=2)
    try:
        target = server.start("127.0.0.1", 0, 3600)
        model = ModelConfig(target=target, bundle=str(exported.folder / "bundle"))
        findings = list(model_findings(Config(model=model)))
        assert [finding.status for finding in findings] == ["ok"] * 4, findings
        assert "version 8 answers" in findings[2].detail
        labelled = list(model_findings(Config(model=model.model_copy(update={"label": "canary"}))))
        assert labelled[-1].status == "fail"
        assert "Unrecognized servable version label: canary" in labelled[-1].detail
    finally:
        server.stop()
