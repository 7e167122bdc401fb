"""What commands that talk to a model need: a server that finds nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from consumer.config.shipped import shipped
from consumer.extraction.prompts import PromptLimits, contract_hash, with_markers
from consumer.serving import descriptors
from consumer.serving.tensors import write_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StubModelServer:
    """Version 5 of the demo model, as far as the wire goes: AVAILABLE, and without a positive cell in any window.

    Of other versions it says what TensorFlow Serving says; it has no labels.
    """

    def __init__(self) -> None:
        tokenizer_json = with_markers((shipped("deploy/demo-model") / "tokenizer.json").read_bytes())
        self.contract = contract_hash(tokenizer_json, PromptLimits())
        self.rows: list[int] = []
        self.refuse: Callable[[Any, Any], None] = lambda _request, _context: None
        """Called with every PredictRequest and its context; may abort it."""
        self._server = grpc.server(ThreadPoolExecutor(4))
        methods = {
            descriptors.PREDICT.path: self._predict,
            descriptors.GET_MODEL_STATUS.path: self._status,
        }
        for path, answer in methods.items():
            _, service, name = path.split("/")
            handler = grpc.unary_unary_rpc_method_handler(answer)
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        """Free the port."""
        self._server.stop(None).wait()

    def _status(self, raw: bytes, context: Any) -> bytes:
        request = descriptors.GET_MODEL_STATUS.request.FromString(raw)
        if (version := request.model_spec.version.value) not in (0, 5):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model rexuninlu")
        response = descriptors.GET_MODEL_STATUS.response()
        response.model_version_status.add(version=5, state=descriptors.ModelVersionStatus.State.Value("AVAILABLE"))
        content: bytes = response.SerializeToString()
        return content

    def _predict(self, raw: bytes, context: Any) -> bytes:
        request = descriptors.PREDICT.request.FromString(raw)
        self.refuse(request, context)
        if label := request.model_spec.version_label:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        rows = request.inputs["length"].tensor_shape.dim[0].size
        self.rows.append(rows)
        response = descriptors.PREDICT.response()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 5
        response.model_spec.signature_name = request.model_spec.signature_name
        outputs = {
            "cells": np.zeros((rows, 256), np.int32),
            "scores": np.zeros((rows, 256), np.float32),
            "count": np.zeros((rows, 1), np.int32),
            "contract": np.full((rows, 1), self.contract, np.int32),
        }
        for name, array in outputs.items():
            write_content(response.outputs[name], array)
        content: bytes = response.SerializeToString()
        return content


@pytest.fixture
def stub_server() -> Iterator[StubModelServer]:
    """A model server on a free port."""
    server = StubModelServer()
    yield server
    server.close()
