"""The checked-in messages of TensorFlow Serving."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from consumer.serving import descriptors

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "tf-serving" / "extract_descriptors.py"


def test_the_set_is_that_of_the_official_package() -> None:
    """Every file in the set equals the one in the installed tensorflow-serving-api."""
    try:
        installed = importlib.metadata.version("tensorflow-serving-api")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("NOT COMPARED: pip install --no-deps tensorflow-serving-api, beside the [model] extra, to compare")
    if installed != descriptors.MADE_FROM:
        pytest.skip(f"NOT COMPARED: tensorflow-serving-api {installed} is installed, not {descriptors.MADE_FROM}")
    pytest.importorskip("tensorflow", reason="NOT COMPARED: the official package imports TensorFlow ([model] extra)")
    spec = importlib.util.spec_from_file_location("extract_descriptors", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    official = {file.name: file for file in FileDescriptorSet.FromString(script.extract()).file}
    checked_in = {file.name: file for file in FileDescriptorSet.FromString(script.TARGET.read_bytes()).file}
    assert checked_in == official


def test_methods_have_their_paths_and_messages() -> None:
    """The four methods carry the names that the server listens to."""
    assert descriptors.PREDICT.path == "/tensorflow.serving.PredictionService/Predict"
    assert descriptors.GET_MODEL_METADATA.path == "/tensorflow.serving.PredictionService/GetModelMetadata"
    assert descriptors.GET_MODEL_STATUS.path == "/tensorflow.serving.ModelService/GetModelStatus"
    assert descriptors.HANDLE_RELOAD_CONFIG.path == "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    assert descriptors.PREDICT.request.DESCRIPTOR.full_name == "tensorflow.serving.PredictRequest"


def test_a_warmup_record_survives_the_wire() -> None:
    """A PredictionLog with a Predict request reads back as it was written."""
    record = descriptors.PredictionLog()
    record.predict_log.request.model_spec.name = "demo"
    record.predict_log.request.inputs["x"].int_val.extend([1, -2])
    assert descriptors.PredictionLog.FromString(record.SerializeToString()) == record


def test_an_unknown_message_is_named() -> None:
    """Asking for a message that is not in the set raises KeyError with its name."""
    with pytest.raises(KeyError, match="NoSuchMessage"):
        descriptors.message_class("tensorflow.serving.NoSuchMessage")


def test_the_client_needs_neither_tensorflow_nor_generated_code() -> None:
    """Importing the client in a fresh interpreter imports no TensorFlow, and no message of its default pool."""
    code = (
        "import sys, consumer.serving.client\n"
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'tensorflow_serving', 'keras')]\n"
        "assert not heavy, heavy\n"
        "from google.protobuf import descriptor_pool\n"
        "try:\n"
        "    descriptor_pool.Default().FindMessageTypeByName('tensorflow.TensorProto')\n"
        "except KeyError:\n"
        "    sys.exit(0)\n"
        "sys.exit('tensorflow.TensorProto leaked into the default pool')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
