"""A model server that costs next to nothing: what is measured in front of it is the client.

    instant_server.py BUNDLE

Prints its address. Every extraction window has one span of the hint's first type, two tokens long; every classification
window votes for its first type.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW
from consumer.serving.bundle import load_bundle
from consumer.serving.descriptors import GET_MODEL_STATUS, PREDICT
from consumer.serving.tensors import Expected, read_output, write_content

BYTES = 64 << 20


class Instant:
    """Both methods, over bytes."""

    def __init__(self, folder: Path) -> None:
        bundle = load_bundle(folder)
        self._contract = bundle.contract
        self._type = bundle.tokenizer.type
        self._markers = (bundle.tokenizer.classify, bundle.tokenizer.multiclassify)

    async def predict(self, raw: bytes, _: grpc.aio.ServicerContext) -> bytes:
        """Cells of the compact signature."""
        request = PREDICT.request.FromString(raw)
        rows, length = (int(dim.size) for dim in request.inputs["input_ids"].tensor_shape.dim)
        ids = read_output(request.inputs, "input_ids", Expected(np.int32, (rows, length)))
        column = Expected(np.int32, (rows, 1))
        starts = read_output(request.inputs, "text_start", column)[:, 0]
        lengths = read_output(request.inputs, "length", column)[:, 0]
        cells = np.zeros((rows, MAX_CELLS_PER_WINDOW), np.int32)
        scores = np.zeros((rows, MAX_CELLS_PER_WINDOW), np.float32)
        head = (ids == self._type).argmax(1).astype(np.int32)
        voting = np.isin(ids[np.arange(rows), starts], self._markers)
        first = np.minimum(starts + 1, lengths - 2)
        last = np.minimum(starts + 2, lengths - 2)
        first, last = np.where(voting, starts, first), np.where(voting, starts, last)
        cells[:, 0] = first << 16 | last
        cells[:, 1] = first << 16 | head
        cells[:, 2] = head << 16 | last
        scores[:, :3] = 2.0
        count = np.full((rows, 1), 3, np.int32)
        response = PREDICT.response()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 1
        contract = np.full((rows, 1), self._contract, np.int32)
        for name, array in (("cells", cells), ("scores", scores), ("count", count), ("contract", contract)):
            write_content(response.outputs[name], array)
        return bytes(response.SerializeToString())

    async def status(self, _raw: bytes, _: grpc.aio.ServicerContext) -> bytes:
        """Version 1 is available."""
        response: Any = GET_MODEL_STATUS.response()
        response.model_version_status.add(version=1, state=30)
        return bytes(response.SerializeToString())


async def main(model: type[Instant] = Instant) -> None:
    """Until killed."""
    instant = model(Path(sys.argv[1]))
    options = (("grpc.max_receive_message_length", BYTES), ("grpc.max_send_message_length", BYTES))
    server = grpc.aio.server(options=options)
    for method, handle in ((PREDICT, instant.predict), (GET_MODEL_STATUS, instant.status)):
        service, name = method.path.strip("/").split("/")
        handler = grpc.unary_unary_rpc_method_handler(handle)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
