"""A worker's answers to probes and /status, state by state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from consumer.config.tree import Config, DeliveryConfig
from consumer.events import Partition
from consumer.kafka.runtime import KafkaRuntime, RuntimeStatus
from consumer.serving.dispatch.dispatcher import State
from consumer.telemetry.metrics import Metrics
from consumer.worker.dead_letter_breaker import DeadLetterBreaker
from consumer.worker.health import STUCK_SECONDS, Health

if TYPE_CHECKING:
    from typing import Any


class Runtime:
    def __init__(self, **changed: Any) -> None:
        values: dict[str, Any] = {
            "joined": True,
            "assignment": {Partition("in", 1): 1, Partition("in", 0): 1},
            "paused": (),
            "in_flight_events": 3,
            "in_flight_bytes": 900,
            "poll_age": 0.1,
            "release_age": 0.1,
            "lag": {Partition("in", 0): 7},
            "blocked_outputs": (),
        }
        self._status = RuntimeStatus(**{**values, **changed})

    def status(self) -> RuntimeStatus:
        return self._status


def health(**changed: Any) -> Health:
    it = Health(Config(), "w", Metrics(), DeadLetterBreaker(DeliveryConfig()))
    it.model_available = True
    it.runtime = cast("KafkaRuntime", Runtime(**changed))
    return it


def test_a_joined_worker_with_its_model_is_ready_and_consuming() -> None:
    """An empty assignment is no fault; the status lists what is assigned in order."""
    it = health()
    assert it.ready() == (True, {"reasons": []})
    assert it.live()[0]
    status = it.status()
    assert status["state"] == "consuming"
    assert [(p["partition"], p["lag"]) for p in status["assignment"]] == [(0, 7), (1, None)]
    assert health(assignment={}).ready()[0]


def test_every_reason_not_ready_is_said_in_words() -> None:
    """Whoever is on call reads the reason, not a code."""
    it = Health(Config(), "w", Metrics(), DeadLetterBreaker(DeliveryConfig()))
    assert "AVAILABLE" in it.reasons()[0]
    assert "group" in it.reasons()[1]
    assert it.status()["state"] == "starting"

    assert "group" in health(joined=False).reasons()[0]
    assert "reviews.dead" in health(blocked_outputs=("reviews.dead",)).reasons()[0]
    for state, word in ((State.OUTAGE, "answer"), (State.DEPLOYMENT_FAULT, "fit")):
        broken = health()
        broken.serving = state
        assert word in broken.reasons()[0]
    waiting = health()
    waiting.registry = "schema registry answered 503"
    assert waiting.reasons() == ["schema registry answered 503"]
    draining = health()
    draining.draining = True
    assert draining.ready() == (False, {"reasons": ["draining"]})
    assert draining.status()["state"] == "draining"
    assert health(paused=("outage",)).status()["state"] == "paused"


def test_a_stuck_thread_is_not_alive_and_an_outage_is() -> None:
    """A restart mends a thread that hangs; it does not mend a broker or a model server."""
    alive = health(joined=False)
    alive.serving = State.OUTAGE
    assert alive.live()[0]
    for name in ("poll", "release"):
        ok, detail = health(**{f"{name}_age": STUCK_SECONDS + 1}).live()
        assert not ok
        assert name in str(detail)
    stuck = health()
    stuck.loop_round_at = time.monotonic() - STUCK_SECONDS - 1
    assert not stuck.live()[0]
