"""What the worker needs from a model server, whatever is behind it: a client, its answers and its failures.

The dotted name of ``ServingError`` is published in dead letters, so neither it nor this file may be renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Cells, Window


class Failure(Enum):
    """What a failed call means for the worker; docs/fault-isolation.md describes how it reacts."""

    BATCH_FAULT = "batch_fault"
    """A window of this batch is the cause: halve the batch until that window is alone."""
    TRANSIENT = "transient"
    """The server or the network is the cause: back off and repeat; nothing is dead-lettered."""
    DEPLOYMENT = "deployment_fault"
    """Model and worker do not fit: stop consuming, alert, probe until it is repaired."""


class Relief(Enum):
    """How a transient failure changes the load that is sent next."""

    NONE = "none"
    SMALLER_MEMORY = "smaller_memory"
    FEWER_IN_FLIGHT = "fewer_in_flight"
    FEWER_BYTES = "fewer_bytes"


class ServingError(Exception):
    """A model call failed. ``code`` is the gRPC status name, or ``CONTRACT`` or ``ANSWER`` for our own checks."""

    def __init__(self, failure: Failure, code: str, message: str, relief: Relief = Relief.NONE) -> None:
        super().__init__(f"{code}: {message}")
        self.failure = failure
        self.code = code
        self.message = message
        self.relief = relief


@dataclass(frozen=True, slots=True)
class Answer:
    """Cells of every window of a batch, in order. ``overflowed`` are indexes that were repeated on ``dense``."""

    cells: tuple[Cells, ...]
    model_name: str
    model_version: str
    signature: str
    seconds: float
    """Round trip of the batch, the repeats of overflowed windows not counted."""
    overflowed: tuple[int, ...] = ()


class ModelClient(Protocol):
    """Runs batches of windows. Implemented over gRPC, and by stubs in tests."""

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        """Run one batch, padded to ``padded_length`` tokens, within ``timeout`` seconds. Raises ServingError."""

    async def ready(self) -> bool:
        """Whether the configured model version is AVAILABLE. Never raises for an unreachable server."""

    async def close(self) -> None:
        """Close the channel."""
