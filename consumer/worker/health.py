"""A worker's answers to ``/livez``, ``/readyz`` and ``/status``; also the name that tells workers apart."""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import structlog

from consumer import __version__
from consumer.batching.policy import ASSUMED, CallCost
from consumer.config.inputs import InputOf
from consumer.serving.dispatch.dispatcher import State
from consumer.telemetry.http import HttpServer
from consumer.telemetry.status import VariantsStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.config.tree import Config
    from consumer.kafka.runtime import KafkaRuntime, RuntimeStatus
    from consumer.serving.dispatch.endpoint import EndpointStatus
    from consumer.telemetry.metrics import Metrics
    from consumer.telemetry.status import WorkerStatus
    from consumer.worker.dead_letter_breaker import DeadLetterBreaker


_log = structlog.stdlib.get_logger(__name__)

STUCK_SECONDS = 60.0
"""The event loop is stuck when it has not run for this long: nothing on it waits."""


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
    registry: Mapping[str, str] = field(default_factory=dict)
    """Why the schema registry keeps events waiting, by input topic; empty when it does not."""
    model_available: bool = False
    unavailable: str = ""
    """Why not, as far as the server says it."""
    unreachable: str = ""
    """Why no cluster answers, while one is needed before the group is joined."""
    draining: bool = False
    loop_round_at: float = field(default_factory=time.monotonic)
    """Monotonic seconds of the latest heartbeat on the event loop."""
    in_flight: Mapping[Literal["events", "bytes", "windows"], int] = field(
        default_factory=lambda: {"events": 0, "bytes": 0, "windows": 0}
    )
    """Of one moment: read apart, there would be windows of no event."""
    call_cost: tuple[Literal["configured", "measured", "assumed"], CallCost] = "assumed", ASSUMED
    """What calls are expected to cost, and how that is known."""
    endpoints: Sequence[EndpointStatus] = ()
    """The model servers."""
    variants: VariantsStatus = field(default_factory=VariantsStatus)
    """Of several ways to the model; empty where there is one."""

    since: Mapping[object, float] = field(default_factory=dict)
    """Monotonic seconds since when each thing has been so that is so now, for ages: ``observe`` names them."""

    def __post_init__(self) -> None:
        self._input_of = InputOf(route.input for route in self.config.routes)
        if "cost" in (batching := self.config.batching).model_fields_set:
            self.call_cost = "configured", batching.cost.of_calls()

    def observe(self, endpoints: Sequence[EndpointStatus], windows: int) -> None:
        """Note what there is now, twice a second, on the event loop. ``windows`` wait or are in a call."""
        now, runtime = time.monotonic(), self.runtime.status() if self.runtime is not None else None
        events, size = (runtime.in_flight_events, runtime.in_flight_bytes) if runtime else (0, 0)
        self.in_flight = {"events": events, "bytes": size, "windows": windows}
        self.endpoints = endpoints
        so: list[object] = [self._state(runtime), not self.reasons(), *((each[0], each[1]) for each in endpoints)]
        so += [("paused", reason) for reason in (runtime.paused_topics if runtime else ())]
        self.since = {each: self.since.get(each, now) for each in so}

    def live(self) -> tuple[bool, dict[str, object]]:
        """Whether every thread's loop runs. Brokers and the model server have no influence on it.

        The Kafka threads have as long as their longest call may take, such as a last commit with its minute; while the
        worker drains, its own deadline bounds them.
        """
        ages = {"loop": (time.monotonic() - self.loop_round_at, STUCK_SECONDS)}
        if (runtime := self.runtime) is not None and not self.draining:
            status = runtime.status()
            ages["poll"] = status.poll_age, status.poll_limit
            ages["release"] = status.release_age, status.release_limit
        stuck = {name: round(age, 1) for name, (age, limit) in ages.items() if age > limit}
        return not stuck, {"stuck_seconds": stuck}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Joined, model available, able to consume at least one of its input topics, not draining.

        ``unreachable`` is there while it does not reach all leaders: of its partitions some are consumed then.
        """
        reasons, detail = self.reasons(), {}
        if self.runtime is not None and (unreachable := self.runtime.status().unreachable):
            detail = {"unreachable": unreachable}
        return not reasons, {"reasons": reasons, **detail}

    def reasons(self) -> list[str]:
        """Why the worker is not ready, in words; empty when it is.

        It is while any of its input topics can be consumed: those that wait are named by ``waiting``.
        """
        runtime = self.runtime.status() if self.runtime is not None else None
        joined = runtime is not None and runtime.joined
        model = self.config.model
        why = f": {self.unavailable}" if self.unavailable else ""
        alone = self.unreachable if runtime is None else runtime.unreachable
        checks = (
            (self.draining, "draining"),
            (not self.model_available, f"model {model.name} is not AVAILABLE on {model.target}{why}"),
            (self.serving is State.DEPLOYMENT_FAULT, "the model does not fit this worker, see the log"),
            (self.serving is State.OUTAGE, "the model server does not answer"),
            (not joined, f"not joined to the consumer group{': ' if alone else ''}{alone}"),
        )
        waiting = self.waiting(runtime)
        blocked = waiting if waiting.keys() >= self._topics(runtime) else {}
        words = dict.fromkeys(reason for reasons in blocked.values() for reason in reasons)
        return [reason for applies, reason in checks if applies] + list(words)

    def waiting(self, runtime: RuntimeStatus | None) -> dict[str, list[str]]:
        """Why inputs, topics or patterns, are not consumed although others may be, in words."""
        found: dict[str, list[str]] = {}
        for topic, reason in (*self.registry.items(), *self.breaker.paused().items()):
            reasons = found.setdefault(self._input_of[topic], [])
            if reason not in reasons:  # topics of a pattern wait for the same
                reasons.append(reason)
        if runtime is not None:
            own = self._inputs_of(each.topic for each in runtime.assignment)  # newer than what was looked for
            for pattern in (each for each, topics in runtime.pattern_topics.items() if not topics and each not in own):
                what = f"no topic matches {pattern}: create one, or check the pattern and the right to DESCRIBE"
                found.setdefault(pattern, []).append(what)
            blocked = {out: inputs and self._inputs_of(inputs) for out, inputs in runtime.blocked_outputs.items()}
            away = runtime.unreachable_topics
            near = self._inputs_of(each.topic for each in runtime.assignment if each.topic not in away)
            for topic in sorted(set(self._inputs_of(away)).difference(near)):
                found.setdefault(topic, []).append(runtime.unreachable)
            for topic in sorted(runtime.paused_topics.get("output", ())):
                outputs = [out for out, inputs in blocked.items() if inputs is None or topic in inputs]
                found.setdefault(topic, []).append(f"output refused by {', '.join(sorted(outputs))}")
            for topic in sorted(runtime.paused_topics.get("commit", ())):
                what = f"offsets cannot be committed, for {runtime.uncommitted_seconds:.0f} s"
                found.setdefault(topic, []).append(f"{what} ({runtime.commit_error or 'no answer'})")
        return found

    def status(self) -> WorkerStatus:
        """Everything at this moment, for people and for the page."""
        runtime = self.runtime.status() if self.runtime is not None else None
        reasons = self.reasons()
        state, since, now = self._state(runtime), self.since, time.monotonic()

        def seconds(thing: object) -> float:
            return round(now - since.get(thing, now), 1)

        return {
            "service": "rexstream",
            "version": __version__,
            "worker": self.worker,
            "group": self.config.kafka.group_id,
            "state": state,
            "state_seconds": seconds(state),
            "uptime_seconds": round(now - self.started, 1),
            "ready": not reasons,
            "ready_seconds": seconds(not reasons),
            "reasons": reasons,
            "waiting": self.waiting(runtime),
            "unreachable": runtime.unreachable if runtime else self.unreachable,
            "assignment": [
                {
                    "topic": partition.topic,
                    "partition": partition.number,
                    "lag": runtime.lag.get(partition),
                    "lag_age_seconds": runtime.lag_ages.get(partition),
                }
                for partition in sorted(runtime.assignment)
            ]
            if runtime
            else [],
            "in_flight": dict(self.in_flight),
            "paused": list(runtime.paused) if runtime else [],
            "paused_topics": {reason: sorted(topics) for reason, topics in sorted(runtime.paused_topics.items())}
            if runtime
            else {},
            "paused_seconds": {reason: seconds(("paused", reason)) for reason in (runtime.paused if runtime else ())},
            "pattern_topics": dict(runtime.pattern_topics) if runtime else {},
            "flood": self.breaker.status(),
            "model": {
                "target": self.config.model.target,
                "name": self.config.model.name,
                "version": self.metrics.model_version,
                "versions": [{**each} for each in self.metrics.versions.last_minute()],
                "available": self.model_available,
                "call_cost": {
                    "known": self.call_cost[0],
                    "floor_seconds": self.call_cost[1].floor,
                    "fixed_seconds": self.call_cost[1].fixed,
                    "linear_seconds": self.call_cost[1].per_token,
                    "square_seconds": self.call_cost[1].per_pair,
                },
                "endpoints": [
                    {**each._asdict(), "state_seconds": seconds((each.address, each.state))} for each in self.endpoints
                ],
                **self.variants,
            },
            **self.metrics.recent(),
        }

    def _state(self, runtime: RuntimeStatus | None) -> str:
        if self.draining:
            return "draining"
        if runtime is None:
            return "starting"
        paused = frozenset[str]().union(*runtime.paused_topics.values())
        return "paused" if paused >= self._topics(runtime) else "consuming"

    def _topics(self, runtime: RuntimeStatus | None) -> set[str]:
        """The inputs that it is judged by: those it has partitions of; without any, all that it may be given."""
        own = self._inputs_of(each.topic for each in runtime.assignment) if runtime is not None else set()
        return own or {route.input for route in self.config.routes}

    def _inputs_of(self, topics: Iterable[str]) -> set[str]:
        return {self._input_of[topic] for topic in topics}


def worker_name() -> str:
    """For logs and /status, unique among the live workers of a group: host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"


def open_http(health: Health) -> HttpServer | None:
    """Serve a worker's state, metrics and ``resume``; None where no address is configured. Raises OSError for one that
    cannot be used.
    """
    settings = health.config.observability
    if not settings.http:
        return None
    try:
        server = HttpServer(
            settings.http,
            live=health.live,
            ready=health.ready,
            status=health.status,
            metrics=health.metrics.exposition,
            resume=health.breaker.resume,
            hosts=settings.http_hosts,
        )
    except ValueError as error:  # no host and port after all, or a host name that no resolver takes
        raise OSError(errno.EINVAL, str(error)) from None
    _log.info("http", address=f"{settings.http.rpartition(':')[0]}:{server.server_port}")
    return server
