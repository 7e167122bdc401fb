"""A checkpoint as a model client: runs the code of the exported graph in this process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import tensorflow as tf

from consumer.batching.queue import padded_length as round_up
from consumer.model.checkpoint import load_checkpoint
from consumer.model.graph import DENSE, SERVING, RexUniNLU, unpacked
from consumer.model.tokenizer import read_bundle
from consumer.serving.errors import classify
from consumer.serving.protocol import Answer, Failure, ServingError
from consumer.serving.tensors import GraphContract, legal_cells, pad

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from consumer.extraction.window import Window

_STATUS_NAMES = {status.value[0]: status.name for status in grpc.StatusCode}


class CheckpointModel:
    """Implements ModelClient without an export and without a server. ``bundle`` is what a worker would be given.

    The model's name is the checkpoint's folder, its version the first 12 digits of the weights' SHA-256.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Raises CheckpointError."""
        loaded = load_checkpoint(checkpoint)
        self.bundle = read_bundle(checkpoint, loaded.config)
        self._agreed = GraphContract.of(self.bundle)
        self._module = RexUniNLU(loaded, self._agreed)
        self._name, self._version = checkpoint.resolve().name, loaded.sha256[:12]

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        """Run one batch in a thread. After ``timeout`` seconds it is given up on, not stopped. Raises ServingError."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._predict, windows, padded_length), timeout)
        except TimeoutError:
            raise ServingError(
                Failure.TRANSIENT,
                "DEADLINE_EXCEEDED",
                f"a batch of {len(windows)} x {padded_length} tokens took more than {timeout:g} s",
            ) from None
        except tf.errors.OpError as error:
            code = _STATUS_NAMES.get(error.error_code, "UNKNOWN")
            failure, relief = classify(code, error.message)
            raise ServingError(failure, code, error.message, relief) from error

    async def ready(self) -> bool:
        """Always: the model is loaded when this exists."""
        return True

    async def close(self) -> None:
        """Nothing to close."""

    def _predict(self, windows: Sequence[Window], padded_length: int) -> Answer:
        started = time.monotonic()
        outputs = self._run(SERVING, windows, padded_length)
        seconds = time.monotonic() - started
        cells = unpacked(outputs)
        overflowed = np.flatnonzero(outputs["count"][:, 0] > self._agreed.cells_per_window).tolist()
        for index in overflowed:
            window = windows[index]
            logits = self._run(DENSE, [window], round_up(window.length))["logits"][0]
            cells[index] = legal_cells(window, logits, self._agreed)
        return Answer(tuple(cells), self._name, self._version, SERVING, seconds, tuple(overflowed))

    def _run(self, signature: str, windows: Sequence[Window], padded_length: int) -> dict[str, NDArray[Any]]:
        inputs = pad(windows, padded_length, self._agreed.pad)
        outputs = getattr(self._module, signature)(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}
