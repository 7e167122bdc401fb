"""The process of ``model_server.ModelServer``: ``-m chaos.model_process PORT METRICS_PORT``, orders as JSON on stdin.

The second port has the process's metrics, for Prometheus. Each version of the model gives other answers.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
from chaos.reviews import POISON_MARK
from prometheus_client import Counter, start_http_server
from stub_model import TOKENIZER
from stub_server import StubServer

from consumer.serving.tensors import Expected, read_output, write_content

CALL_SECONDS = 0.006
ROW_SECONDS = 0.0004
"""What a call takes: the device does one at a time."""

PREDICT_CALLS = Counter("stub_predict_calls", "Predict calls that this process took.")

_MARK = tuple(int(number) for number in TOKENIZER.encode(POISON_MARK).ids)


class Server(StubServer):
    """Obeys orders."""

    def __init__(self, port: int) -> None:
        self._wanted_port = port
        self._device = threading.Lock()
        self.version = 1
        self.slow = 1.0
        self.garbage: str | None = None
        self.mortal = False
        super().__init__()
        self.versions_differ = True

    def start(self) -> None:
        """Serve on the port that was asked for."""
        self.port = self._wanted_port
        super().start()

    def _status(self, request: Any, context: Any) -> Any:
        response = super()._status(request, context)
        response.model_version_status[0].version = request.model_spec.version.value or self.version
        return response

    def _predict(self, request: Any, context: Any) -> Any:
        PREDICT_CALLS.inc()
        rows, length = (dim.size for dim in request.inputs["input_ids"].tensor_shape.dim)
        if self.mortal and _poisoned(read_output(request.inputs, "input_ids", Expected(np.int32, (rows, length)))):
            os.kill(os.getpid(), signal.SIGKILL)
        response = super()._predict(request, context)
        with self._device:
            time.sleep(self.slow * (CALL_SECONDS + rows * ROW_SECONDS))
        if self.garbage is not None:
            _spoil(response, self.garbage)
        return response


def _poisoned(ids: np.ndarray[Any, Any]) -> bool:
    return bool(np.any((ids[:, :-1] == _MARK[0]) & (ids[:, 1:] == _MARK[1])))


def _spoil(response: Any, garbage: str) -> None:
    shape = tuple(dim.size for dim in response.outputs["scores"].tensor_shape.dim)
    wrong = {"nan": shape, "shape": (*shape[:-1], shape[-1] + 1)}[garbage]
    response.outputs["scores"].Clear()
    write_content(response.outputs["scores"], np.full(wrong, np.nan if garbage == "nan" else 1.0, np.float32))


def main() -> None:
    """Serve until stdin ends."""
    server = Server(int(sys.argv[1]))
    start_http_server(int(sys.argv[2]), "127.0.0.1")
    print("done", flush=True)
    for line in sys.stdin:
        for name, value in json.loads(line).items():
            setattr(server, name, value)
        print("done", flush=True)


if __name__ == "__main__":
    main()
