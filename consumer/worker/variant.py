"""One way to the model. ``variants`` makes a worker's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio

    from consumer.batching.policy import LeastTime
    from consumer.extraction.engine import Engine
    from consumer.serving.bundle import Bundle
    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.worker.inference import Inference
    from consumer.worker.model_watch import ModelServers
    from consumer.worker.task_runner import TaskRunner

VariantName = Literal["stable", "canary"]


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
    running: set[asyncio.Task[Inference]] = field(default_factory=set)
    """Extractions that go on here, where there are several variants."""
    unusable: str = ""
    """Why it cannot be used, as far as the router has looked; empty while it can."""

    @property
    def windows(self) -> int:
        """Windows that wait or are in a call here."""
        return self.dispatcher.waiting + self.dispatcher.in_flight
