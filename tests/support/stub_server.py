"""TensorFlow Serving's Predict and GetModelStatus over the stub model, as a gRPC server in the test's own process."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from held_ports import HeldPorts
from stub_model import TOKENIZER_JSON, stub_cells

from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW, PromptLimits, PromptTokenizer, contract_hash
from consumer.extraction.window import Window
from consumer.serving.descriptors import GET_MODEL_STATUS, PREDICT
from consumer.serving.tensors import Expected, read_output, write_content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTRACT = contract_hash(TOKENIZER_JSON, PromptLimits())


def write_bundle(folder: Path, tokenizer_json: bytes = TOKENIZER_JSON) -> Path:
    """The bundle that belongs to this server, or to a version of it with another tokenizer."""
    import hashlib
    import json
    from dataclasses import asdict

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    settings = {
        "format": 1,
        "limits": asdict(PromptLimits()),
        "cells_per_window": MAX_CELLS_PER_WINDOW,
        "contract": contract_hash(tokenizer_json, PromptLimits()),
        "tokenizer_sha256": hashlib.sha256(tokenizer_json).hexdigest(),
    }
    (folder / "bundle.json").write_text(json.dumps(settings))
    return folder


@functools.cache
def _tokenizer(tokenizer_json: bytes) -> PromptTokenizer:
    return PromptTokenizer(tokenizer_json)


class StubServer:
    """Starts on a free port; ``stop`` and ``start`` again keep the port. ``gate`` cleared makes calls hang.

    With ``credentials``, which may be changed between ``stop`` and ``start``, it speaks TLS.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None, threads: int = 8) -> None:
        self.credentials = credentials
        self.threads = threads
        # Also while it is stopped: nobody else is given its port.
        self._held = HeldPorts()
        (self.port,) = self._held.ports
        self.calls = 0
        self.version = 1
        self.versions_differ = False
        """Whether another version gives other answers."""
        self.tokenizers: dict[int, bytes] = {}
        """``tokenizer.json`` by version; of those that are not here, that of the stub model."""
        self.labels: dict[str, int] = {}
        self.seconds: dict[int, float] = {}
        """How long a call of a version takes."""
        self.gate = threading.Event()
        self.gate.set()
        self.before: Callable[[Any, grpc.ServicerContext], None] = lambda *_: None
        self.before_status: Callable[[Any, grpc.ServicerContext], None] = lambda *_: None
        self._server: grpc.Server | None = None
        self.start()

    @property
    def target(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve."""
        server = grpc.server(ThreadPoolExecutor(self.threads), options=(("grpc.so_reuseport", 0),))
        for service, method, handle in (
            ("PredictionService", PREDICT, self._predict),
            ("ModelService", GET_MODEL_STATUS, self._status),
        ):
            name = method.path.rsplit("/", 1)[1]
            handler = grpc.unary_unary_rpc_method_handler(
                handle, method.request.FromString, lambda m: m.SerializeToString()
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", {name: handler}),)
            )
        address = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, self.credentials)
        server.start()
        self._server = server

    def stop(self) -> None:
        """As SIGKILL would: calls in flight get UNAVAILABLE."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def away(self, *, away: bool) -> None:
        """Whether every call gets UNAVAILABLE: as ``stop``, but nobody else can take the port meanwhile."""

        def refuse(_: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is away")

        self.before = self.before_status = refuse if away else lambda *_: None

    def _status(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.before_status(request, context)
        response = GET_MODEL_STATUS.response()
        response.model_version_status.add(version=request.model_spec.version.value or self.version, state=30)
        return response

    def _asked(self, spec: Any, context: grpc.ServicerContext) -> int:
        if spec.version_label:
            if spec.version_label not in self.labels:
                what = f"Unrecognized servable version label: {spec.version_label}"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)
            return self.labels[spec.version_label]
        return spec.version.value or self.version

    def _predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.calls += 1
        self.gate.wait(60)
        self.before(request, context)
        version = self._asked(request.model_spec, context)
        time.sleep(self.seconds.get(version, 0.0))
        tokenizer_json = self.tokenizers.get(version, TOKENIZER_JSON)
        tokenizer = _tokenizer(tokenizer_json)
        rows, length = (dim.size for dim in request.inputs["input_ids"].tensor_shape.dim)
        full = Expected(np.int32, (rows, length))
        ids, segment, positions = (
            read_output(request.inputs, name, full) for name in ("input_ids", "segment", "position_ids")
        )
        lengths, starts = (
            read_output(request.inputs, name, Expected(np.int32, (rows, 1)))[:, 0] for name in ("length", "text_start")
        )
        cells = np.zeros((rows, MAX_CELLS_PER_WINDOW), np.int32)
        scores = np.zeros((rows, MAX_CELLS_PER_WINDOW), np.float32)
        count = np.zeros((rows, 1), np.int32)
        for row in range(rows):
            n = int(lengths[row])
            window = Window(ids[row, :n], positions[row, :n], segment[row, :n], int(starts[row]))
            found = stub_cells(window, version if self.versions_differ else 1, tokenizer)
            count[row] = len(found.rows)
            cells[row, : len(found.rows)] = found.rows << 16 | found.columns
            scores[row, : len(found.rows)] = found.logits
        response = PREDICT.response()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        own = version in self.tokenizers
        contract = np.full((rows, 1), contract_hash(tokenizer_json, PromptLimits()) if own else CONTRACT, np.int32)
        for name, array in (("cells", cells), ("scores", scores), ("count", count), ("contract", contract)):
            write_content(response.outputs[name], array)
        return response
