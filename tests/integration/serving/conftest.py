"""Tiny SavedModels, and the local model server over them in this process."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from consumer.serving.descriptors import GET_MODEL_METADATA, GET_MODEL_STATUS, HANDLE_RELOAD_CONFIG, PREDICT, Method
from consumer.serving.tensors import read_output, shape_of, write_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Caller:
    """Calls the four methods over the wire."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])

    def __call__(self, method: Method, request: Any, timeout: float = 30.0) -> Any:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return call(request, timeout=timeout, wait_for_ready=True)

    def predict(
        self,
        inputs: dict[str, Any] | None = None,
        *,
        model: str = "demo",
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        outputs: tuple[str, ...] = (),
    ) -> Any:
        """PredictResponse. Inputs are arrays, or TensorProtos to be sent as they are."""
        request = PREDICT.request()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        if label is not None:
            request.model_spec.version_label = label
        request.output_filter.extend(outputs)
        for alias, value in (inputs if inputs is not None else {"x": np.ones((1, 3), np.float32)}).items():
            if isinstance(value, np.ndarray):
                write_content(request.inputs[alias], value)
            else:
                request.inputs[alias].CopyFrom(value)
        return self(PREDICT, request)

    def version(self, **asked: Any) -> int:
        """The version that answers."""
        number: int = self.predict(**asked).model_spec.version.value
        return number

    def status(self, model: str = "demo", version: int | None = None) -> list[tuple[int, str]]:
        """Versions and states in the order given."""
        states = GET_MODEL_STATUS.response.DESCRIPTOR.file.message_types_by_name["ModelVersionStatus"].enum_types[0]
        return [
            (entry.version, states.values_by_number[entry.state].name)
            for entry in self.statuses(model, version).model_version_status
        ]

    def statuses(self, model: str = "demo", version: int | None = None) -> Any:
        request = GET_MODEL_STATUS.request()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        return self(GET_MODEL_STATUS, request)

    def metadata(self, *fields: str, model: str = "demo") -> Any:
        request = GET_MODEL_METADATA.request(metadata_field=fields)
        request.model_spec.name = model
        return self(GET_MODEL_METADATA, request)

    def reload(self, *models: dict[str, Any], timeout: float = 30.0) -> Any:
        request = HANDLE_RELOAD_CONFIG.request()
        request.config.model_config_list.SetInParent()
        for entry in models:
            request.config.model_config_list.config.add(model_platform="tensorflow", **entry)
        return self(HANDLE_RELOAD_CONFIG, request, timeout)

    def refusal(self, method: Method | None = None, request: Any = None, **asked: Any) -> tuple[str, str]:
        """Status and text of a call that fails."""
        with pytest.raises(grpc.RpcError) as caught:
            self.predict(**asked) if method is None else self(method, request)
        error: Any = caught.value
        return error.code().name, error.details()

    def close(self) -> None:
        self._channel.close()


def array(response: Any, alias: str, dtype: Any) -> np.ndarray[Any, Any]:
    """An output of a response."""
    from consumer.serving.tensors import Expected

    return read_output(response.outputs, alias, Expected(dtype, shape_of(response.outputs[alias])))


class Lab:
    """A folder of models to be filled by tests, and templates to fill it with."""

    def __init__(self, templates: dict[str, Path], root: Path) -> None:
        self.templates = templates
        self.models = root

    def add(self, version: str, template: str = "double", model: str = "demo") -> Path:
        """A version of a model, complete when it appears."""
        target = self.models / model / version
        draft = self.models / model / f".draft-{version}"
        shutil.copytree(self.templates[template], draft)
        draft.rename(target)
        return target

    def remove(self, version: str, model: str = "demo") -> None:
        shutil.rmtree(self.models / model / version)

    @contextmanager
    def serve(self, *, tensor_content: bool = False, poll_seconds: float = 3600.0) -> Iterator[tuple[Caller, Any]]:
        """A server over everything that was added, and its catalog, which the test polls when it wants to."""
        from consumer.local.catalog import Catalog
        from consumer.local.model_folders import find_models
        from consumer.local.model_server import ModelServer
        from consumer.local.saved_model import SavedModel

        catalog = Catalog(find_models(self.models), lambda folder: SavedModel(folder, 2))
        server = ModelServer(catalog, cpus=2, tensor_content=tensor_content)
        try:
            caller = Caller(server.start("127.0.0.1", 0, poll_seconds))
            yield caller, catalog
            caller.close()
        finally:
            server.stop()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModels that multiply by 2 and by 3, made once."""
    tf = pytest.importorskip("tensorflow", reason="the local model server needs the [model] extra (TensorFlow)")
    root = tmp_path_factory.mktemp("templates")

    def save(name: str, factor: float) -> Path:
        module = tf.Module()
        module.factor = tf.Variable(factor)
        module.ones = tf.Variable(tf.ones([3, 2]))

        def signature(function: Any, **specs: Any) -> Any:
            return tf.function(function).get_concrete_function(
                **{alias: tf.TensorSpec(shape, dtype, alias) for alias, (shape, dtype) in specs.items()}
            )

        numbers = {
            "i": ([None], tf.int32),
            "l": ([None], tf.int64),
            "h": ([None], tf.float16),
            "b": ([None], tf.bool),
            "d": ([], tf.float64),
        }
        module.words = signature(lambda s: {"joined": tf.strings.reduce_join(s, -1)}, s=([None, 2], tf.string))
        module.times = signature(lambda x: {"y": module.factor * x}, x=([None, 3], tf.float32))
        module.matmul = signature(lambda x: {"y": tf.matmul(x, module.ones)}, x=([None, 3], tf.float32))
        module.two = signature(
            lambda a, b: {"sum": a + b, "product": a * b}, a=([None], tf.int32), b=([None], tf.int32)
        )
        module.kinds = signature(lambda **given: {f"{k}_out": tf.identity(v) for k, v in given.items()}, **numbers)
        signatures = {
            "serving_default": module.times,
            "matmul": module.matmul,
            "two": module.two,
            "kinds": module.kinds,
            "words": module.words,
        }
        tf.saved_model.save(module, str(root / name), signatures)
        return root / name

    return {"double": save("double", 2.0), "triple": save("triple", 3.0)}


@pytest.fixture
def lab(templates: dict[str, Path], tmp_path: Path) -> Lab:
    """An empty folder of models."""
    return Lab(templates, tmp_path / "models")


@pytest.fixture(scope="module")
def demo(templates: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A server with version 1 of ``demo``, which the tests of a module share and do not change."""
    lab = Lab(templates, tmp_path_factory.mktemp("shared"))
    lab.add("1")
    with lab.serve() as (caller, _):
        yield caller


@pytest.fixture
def caller_at() -> type[Caller]:
    """Makes a caller for an address."""
    return Caller
