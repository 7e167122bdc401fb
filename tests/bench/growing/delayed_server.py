"""Simulated GPU servers: each answers one call at a time, after as long as the call's shape costs.

    delayed_server.py BUNDLE SERVERS FLOOR FIXED PER_TOKEN PER_PAIR

Prints an address a line, one for each of ``SERVERS``. The last four are the cost of a call (``policy.CallCost``), in
which the process sleeps; answers are those of ``bare/instant_server.py``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.bare.instant_server import BYTES, Instant

from consumer.batching.policy import CallCost
from consumer.serving.descriptors import GET_MODEL_STATUS, PREDICT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class Delayed(Instant):
    """One server."""

    def __init__(self, folder: Path, cost: CallCost) -> None:
        super().__init__(folder)
        self._cost = cost
        self._free_at = 0.0

    async def predict(self, raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Behind the calls that came before."""
        rows, length = (dim.size for dim in PREDICT.request.FromString(raw).inputs["input_ids"].tensor_shape.dim)
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + self._cost.seconds(rows, length)
        free_at = self._free_at
        answer = await super().predict(raw, context)
        await asyncio.sleep(free_at - asyncio.get_running_loop().time())
        return answer


async def serve(instant: Instant) -> tuple[grpc.aio.Server, str]:
    """Start on a free port; the address."""
    options = (("grpc.max_receive_message_length", BYTES), ("grpc.max_send_message_length", BYTES))
    server = grpc.aio.server(options=options)
    handlers: tuple[tuple[str, Handler], ...] = (
        (PREDICT.path, instant.predict),
        (GET_MODEL_STATUS.path, instant.status),
    )
    for path, handle in handlers:
        service, name = path.strip("/").split("/")
        handler = grpc.unary_unary_rpc_method_handler(handle)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def main() -> None:
    """Until killed."""
    cost = CallCost(*map(float, sys.argv[3:]))
    started = [await serve(Delayed(Path(sys.argv[1]), cost)) for _ in range(int(sys.argv[2]))]
    print(*(address for _, address in started), sep="\n", flush=True)
    for server, _ in started:
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
