"""A worker's answers to ``/livez``, ``/readyz`` and ``/status``; also the name that tells workers apart."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer import __version__
from consumer.serving.dispatch.dispatcher import State

if TYPE_CHECKING:
    from consumer.config.tree import Config
    from consumer.kafka.runtime import KafkaRuntime, RuntimeStatus
    from consumer.telemetry.metrics import Metrics
    from consumer.telemetry.status import WorkerStatus
    from consumer.worker.dead_letter_breaker import DeadLetterBreaker


STUCK_SECONDS = 60.0
"""A thread whose loop has not run for this long is stuck. It is far above the longest wait of a rebalance, which holds
the poll thread."""


@dataclass
class Health:
    """Written by the worker, read by the HTTP thread; single attributes, so no lock."""

    config: Config
    worker: str
    metrics: Metrics
    breaker: DeadLetterBreaker
    started: float = field(default_factory=time.monotonic)
    runtime: KafkaRuntime | None = None
    serving: State = State.OK
    registry: str | None = None
    """Why the schema registry keeps events waiting; None when it does not."""
    model_available: bool = False
    unavailable: str = ""
    """Why not, as far as the server says it."""
    draining: bool = False
    loop_round_at: float = field(default_factory=time.monotonic)
    """Monotonic seconds of the latest heartbeat on the event loop."""
    windows_in_flight: int = 0

    def live(self) -> tuple[bool, dict[str, object]]:
        """Whether every thread's loop runs. Brokers and the model server have no influence on it."""
        ages = {"loop": time.monotonic() - self.loop_round_at}
        if (runtime := self.runtime) is not None:
            status = runtime.status()
            ages |= {"poll": status.poll_age, "release": status.release_age}
        stuck = {name: round(age, 1) for name, age in ages.items() if age > STUCK_SECONDS}
        return not stuck, {"stuck_seconds": stuck}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Joined, model available, able to publish, not paused for dead letters, not draining."""
        reasons = self.reasons()
        return not reasons, {"reasons": reasons}

    def reasons(self) -> list[str]:
        """Why the worker is not ready, in words; empty when it is."""
        runtime = self.runtime.status() if self.runtime is not None else None
        flooded = self.breaker.unready()
        joined = runtime is not None and runtime.joined
        blocked = ", ".join(runtime.blocked_outputs) if runtime is not None and joined else ""
        model = self.config.model
        why = f": {self.unavailable}" if self.unavailable else ""
        checks = (
            (self.draining, "draining"),
            (not self.model_available, f"model {model.name} is not AVAILABLE on {model.target}{why}"),
            (self.serving is State.DEPLOYMENT_FAULT, "the model does not fit this worker, see the log"),
            (self.serving is State.OUTAGE, "the model server does not answer"),
            (self.registry, self.registry or ""),
            (flooded, flooded or ""),
            (not joined, "not joined to the consumer group"),
            (blocked, f"output refused by {blocked}"),
        )
        return [reason for applies, reason in checks if applies]

    def status(self) -> WorkerStatus:
        """Everything at this moment, for people and for the page."""
        runtime = self.runtime.status() if self.runtime is not None else None
        reasons = self.reasons()
        return {
            "service": "rexstream",
            "version": __version__,
            "worker": self.worker,
            "state": self._state(runtime),
            "uptime_seconds": round(time.monotonic() - self.started, 1),
            "ready": not reasons,
            "reasons": reasons,
            "assignment": [
                {"topic": partition.topic, "partition": partition.number, "lag": runtime.lag.get(partition)}
                for partition in sorted(runtime.assignment)
            ]
            if runtime
            else [],
            "in_flight": {
                "events": runtime.in_flight_events if runtime else 0,
                "bytes": runtime.in_flight_bytes if runtime else 0,
                "windows": self.windows_in_flight,
            },
            "paused": list(runtime.paused) if runtime else [],
            "flood": self.breaker.status(),
            "model": {
                "target": self.config.model.target,
                "name": self.config.model.name,
                "version": self.metrics.model_version,
                "available": self.model_available,
            },
            **self.metrics.recent(),
        }

    def _state(self, runtime: RuntimeStatus | None) -> str:
        if self.draining:
            return "draining"
        if runtime is None:
            return "starting"
        return "paused" if runtime.paused else "consuming"


def worker_name() -> str:
    """For logs and /status, unique among the live workers of a group: host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"
