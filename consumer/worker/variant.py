"""One way to the model. ``variants`` makes a worker's."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio

    from consumer.batching.policy import LeastTime
    from consumer.events import Place
    from consumer.extraction.engine import Engine
    from consumer.serving.bundle import Bundle
    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.worker.inference import Inference
    from consumer.worker.model_watch import ModelServers
    from consumer.worker.task_runner import TaskRunner

VariantName = Literal["stable", "canary"]

RECENT = 100
"""Calls of each variant whose seconds are kept."""

MOVED = "moved to another variant"
"""What an extraction is cancelled with that begins again elsewhere."""


@dataclass(eq=False)
class Variant:
    """One version to ask, with one bundle, and everything that sends windows there."""

    name: VariantName
    bundle: Bundle
    engine: Engine
    servers: ModelServers
    policy: LeastTime
    dispatcher: Dispatcher
    runner: TaskRunner = field(init=False)
    """Set by ``Variants.infer``."""
    running: dict[asyncio.Task[Inference], Place] = field(default_factory=dict)
    """Extractions that go on here, and where their events lie, where there are several variants."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Seconds that its last calls took, health probes and failed calls too, where there are several variants."""
    unusable: str = ""
    """Why it cannot be used, as far as the router has looked; empty while it can."""

    @property
    def windows(self) -> int:
        """Windows that wait or are in a call here."""
        return self.dispatcher.waiting + self.dispatcher.in_flight
