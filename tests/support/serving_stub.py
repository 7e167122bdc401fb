"""A gRPC server in the place of TensorFlow Serving that answers Predict and GetModelStatus as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np

from consumer.serving.descriptors import GET_MODEL_STATUS, PREDICT
from consumer.serving.tensors import ENCODINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

Reply = Callable[[Any, Any], Any]
"""(request, context) to a response, its bytes or a coroutine of either."""


def typed(proto: Any, array: np.ndarray[Any, Any]) -> None:
    """The encoding of r2.17."""
    proto.dtype = 1 if array.dtype == np.float32 else 3
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, ENCODINGS[proto.dtype].field).extend(array.ravel().tolist())


def respond(outputs: Mapping[str, np.ndarray[Any, Any]], version: int = 3, write: Any = typed) -> Any:
    response = PREDICT.response()
    response.model_spec.name = "rexuninlu"
    response.model_spec.version.value = version
    for name, array in outputs.items():
        write(response.outputs[name], array)
    return response


def compact(contract: int, *windows: Sequence[tuple[int, int, float]], count: int | None = None) -> dict[str, Any]:
    """Outputs of ``serving_default`` with K = 4 cells a window."""
    rows = len(windows)
    cells = np.zeros((rows, 4), np.int32)
    scores = np.zeros((rows, 4), np.float32)
    for row, found in enumerate(windows):
        for place, (r, c, logit) in enumerate(found[:4]):
            cells[row, place], scores[row, place] = r << 16 | c, logit
    counts = [[len(found) if count is None else count] for found in windows]
    return {
        "cells": cells,
        "scores": scores,
        "count": np.array(counts, np.int32),
        "contract": np.full((rows, 1), contract, np.int32),
    }


@asynccontextmanager
async def serving(predict: Reply | None = None, status: Reply | None = None) -> AsyncIterator[str]:
    """A server on a free port whose two methods answer with what the functions return."""

    def handler(method: Any, reply: Reply | None) -> Any:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            assert reply is not None
            answer = reply(request, context)
            return await answer if asyncio.iscoroutine(answer) else answer

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=method.request.FromString,
            response_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
        )

    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    for method, reply in ((PREDICT, predict), (GET_MODEL_STATUS, status)):
        service, name = method.path.strip("/").split("/")
        generic = grpc.method_handlers_generic_handler(service, {name: handler(method, reply)})
        server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def refuse(context: grpc.aio.ServicerContext, code: grpc.StatusCode, message: str) -> None:
    await context.abort(code, message)
