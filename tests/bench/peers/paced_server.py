"""A model server that is the bottleneck: one call at a time, each as long as its rows and padded length cost.

    paced_server.py BUNDLE

Prints its address. Answers are those of ``instant_server``; they are held until the call would be done on a server that
works on one call after the other. The cost is that of the simulator's GPU-like profile, times ``SLOWER``, so that a
client has time for something else on a small machine. No noise: only the calls themselves make a difference.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.bare.instant_server import Instant, main
from bench.simulator.server import GPU

from consumer.serving.descriptors import PREDICT

if TYPE_CHECKING:
    import grpc.aio

SLOWER = 2.0


class Paced(Instant):
    """One call after the other, first come, first served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._free_at = 0.0

    async def predict(self, raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """The answer, when it would be there."""
        rows, length = (int(dim.size) for dim in PREDICT.request.FromString(raw).inputs["input_ids"].tensor_shape.dim)
        self._free_at = max(time.monotonic(), self._free_at) + SLOWER * GPU.seconds(rows, length)
        done = self._free_at
        answer = await super().predict(raw, context)
        await asyncio.sleep(done - time.monotonic())
        return answer


if __name__ == "__main__":
    asyncio.run(main(Paced))
