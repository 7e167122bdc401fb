"""What a worker says of itself: whether it is alive, whether it is ready and why not, and how it is doing."""

from __future__ import annotations

import os
import socket
import time
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
"""A thread whose loop has not come round for this long is stuck. A rebalance may hold the poll thread for a while, so
it is far above the budget of one."""


class Health:
    """Written by the worker, read by the HTTP thread; single attributes, so no lock."""

    def __init__(self, config: Config, worker: str, metrics: Metrics, flood: DeadLetterBreaker) -> None:
        self._config = config
        self._flood = flood
        self._worker = worker
        self._metrics = metrics
        self._started = time.monotonic()
        self.runtime: KafkaRuntime | None = None
        self.serving = State.OK
        self.registry: str | None = None
        self.model_available = False
        self.draining = False
        self.loop_turned_at = time.monotonic()
        self.windows_in_flight = 0

    def live(self) -> tuple[bool, dict[str, object]]:
        """Whether every loop turns. Never false for a broker or a model server."""
        ages = {"loop": time.monotonic() - self.loop_turned_at}
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
        found = []
        if self.draining:
            found.append("draining")
        if not self.model_available:
            found.append(f"model {self._config.model.name} is not AVAILABLE on {self._config.model.target}")
        if self.serving is State.DEPLOYMENT_FAULT:
            found.append("the model does not fit this worker, see the log")
        if self.serving is State.OUTAGE:
            found.append("the model server does not answer")
        if self.registry is not None:
            found.append(self.registry)
        if (flooded := self._flood.unready()) is not None:
            found.append(flooded)
        if runtime is None or not runtime.joined:
            found.append("not joined to the consumer group")
        elif runtime.blocked_outputs:
            found.append(f"output refused by {', '.join(runtime.blocked_outputs)}")
        return found

    def status(self) -> WorkerStatus:
        """Everything at this moment, for people and for the page."""
        runtime = self.runtime.status() if self.runtime is not None else None
        reasons = self.reasons()
        return {
            "service": "rexstream",
            "version": __version__,
            "worker": self._worker,
            "state": self._state(runtime),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
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
            "flood": self._flood.status(),
            "model": {
                "target": self._config.model.target,
                "name": self._config.model.name,
                "version": self._metrics.model_version,
                "available": self.model_available,
            },
            **self._metrics.recent(),
        }

    def _state(self, runtime: RuntimeStatus | None) -> str:
        if self.draining:
            return "draining"
        if runtime is None:
            return "starting"
        return "paused" if runtime.paused else "consuming"


# The name by which logs and /status tell workers apart.


def worker_name() -> str:
    """Unique among the live workers of a group: host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"
