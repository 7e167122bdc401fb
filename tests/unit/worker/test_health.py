"""A worker's answers to probes and /status, state by state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from consumer.config.route import RouteConfig
from consumer.config.tree import Config, DeliveryConfig
from consumer.events import Partition
from consumer.kafka.runtime import KafkaRuntime, RuntimeStatus
from consumer.serving.dispatch.dispatcher import State
from consumer.serving.dispatch.endpoint import EndpointStatus
from consumer.telemetry.metrics import Metrics
from consumer.worker.dead_letter_breaker import DeadLetterBreaker
from consumer.worker.health import STUCK_SECONDS, Health

if TYPE_CHECKING:
    from typing import Any

    import pytest


class Runtime:
    def __init__(self, **changed: Any) -> None:
        values: dict[str, Any] = {
            "joined": True,
            "assignment": {Partition("in", 1): 1, Partition("in", 0): 1},
            "paused_topics": {},
            "in_flight_events": 3,
            "in_flight_bytes": 900,
            "poll_age": 0.1,
            "release_age": 0.1,
            "poll_limit": 120.0,
            "release_limit": 45.0,
            "uncommitted_seconds": 0.0,
            "commit_error": "",
            "lag_ages": {Partition("in", 0): 3.2},
            "lag": {Partition("in", 0): 7},
            "pattern_topics": {},
            "blocked_outputs": {},
        }
        values |= changed
        self._status = RuntimeStatus(**values, paused=tuple(values["paused_topics"]))

    def status(self) -> RuntimeStatus:
        return self._status


def health(**changed: Any) -> Health:
    it = Health(Config(), "w", Metrics(), DeadLetterBreaker(DeliveryConfig(), ("in", "more")))
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
    found = [(p["partition"], p["lag"], p["lag_age_seconds"]) for p in status["assignment"]]
    assert found == [(0, 7, 3.2), (1, None, None)]
    assert health(assignment={}).ready()[0]


def test_every_reason_not_ready_is_said_in_words() -> None:
    """Whoever is on call reads the reason, not a code."""
    it = Health(Config(), "w", Metrics(), DeadLetterBreaker(DeliveryConfig(), ("in", "more")))
    assert "AVAILABLE" in it.reasons()[0]
    assert "group" in it.reasons()[1]
    assert it.status()["state"] == "starting"

    assert "group" in health(joined=False).reasons()[0]
    refused = health(blocked_outputs={"reviews.dead": None}, paused_topics={"output": {"in"}})
    assert "reviews.dead" in refused.reasons()[0]
    for state, word in ((State.OUTAGE, "answer"), (State.DEPLOYMENT_FAULT, "fit")):
        broken = health()
        broken.serving = state
        assert word in broken.reasons()[0]
    waiting = health()
    waiting.registry = {"in": "schema registry answered 503"}
    assert waiting.reasons() == ["schema registry answered 503"]
    draining = health()
    draining.draining = True
    assert draining.ready() == (False, {"reasons": ["draining"]})
    assert draining.status()["state"] == "draining"
    assert health(paused_topics={"outage": {"in"}}).status()["state"] == "paused"


def test_a_stuck_thread_is_not_alive_and_an_outage_is() -> None:
    """A restart mends a thread that hangs; it does not mend a broker or a model server."""
    alive = health(joined=False)
    alive.serving = State.OUTAGE
    assert alive.live()[0]
    for name, limit in (("poll", 120.0), ("release", 45.0)):
        assert health(**{f"{name}_age": limit}).live()[0], "its longest call may still come back"
        ok, detail = health(**{f"{name}_age": limit + 1}).live()
        assert not ok
        assert name in str(detail)
        draining = health(**{f"{name}_age": limit + 1})
        draining.draining = True
        assert draining.live()[0], "a drain has a deadline of its own"
    stuck = health()
    stuck.loop_round_at = time.monotonic() - STUCK_SECONDS - 1
    assert not stuck.live()[0]


def test_a_worker_is_ready_while_it_can_consume_any_of_its_topics() -> None:
    """Of two one waits for its output: ready, consuming, and /status says which waits and why. Both: not ready."""
    both = {Partition("in", 0): 1, Partition("more", 0): 2}
    half: dict[str, Any] = {
        "assignment": both,
        "blocked_outputs": {"out": frozenset({"in"}), "elsewhere": frozenset({"other"})},
    }
    it = health(**half, paused_topics={"output": {"in"}})
    assert it.ready()[0]
    status = it.status()
    assert (status["state"], status["paused"]) == ("consuming", ["output"])
    assert status["paused_topics"] == {"output": ["in"]}
    assert status["waiting"] == {"in": ["output refused by out"]}
    it.registry = {"more": "schema registry answered 503"}
    assert it.ready()[1] == {"reasons": ["schema registry answered 503", "output refused by out"]}
    both_paused = health(**half, paused_topics={"output": {"in"}, "registry": {"more"}})
    assert both_paused.status()["state"] == "paused"


def test_offsets_that_cannot_be_committed_are_a_reason_with_their_error() -> None:
    """Refused, or without any answer."""
    for code, shown in (("GROUP_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"), ("", "no answer")):
        it = health(paused_topics={"commit": {"in"}}, uncommitted_seconds=41.3, commit_error=code)
        assert it.ready()[1] == {"reasons": [f"offsets cannot be committed, for 41 s ({shown})"]}


def test_patterns_are_one_input_for_readiness_and_one_that_matches_nothing_is_said() -> None:
    """What waits of any of its topics waits for all; a worker that can read something else is ready."""
    pattern = r"^shop\..*$"
    config = Config(routes=(RouteConfig(input=pattern), RouteConfig(input="in", output="other")))

    def of(**changed: Any) -> Health:
        it = health(**changed)
        changed_config = Health(config, "w", it.metrics, it.breaker)
        changed_config.model_available, changed_config.runtime = True, it.runtime
        return changed_config

    shops = {Partition("shop.a", 0): 1, Partition("shop.b", 0): 2}
    blocked = {"blocked_outputs": {"out": {"shop.a"}}, "paused_topics": {"output": {pattern}}}
    refused = of(assignment=shops, **blocked)
    assert refused.reasons() == ["output refused by out"]
    assert refused.status()["state"] == "paused"
    assert of(assignment={**shops, Partition("in", 0): 3}, **blocked).reasons() == []
    registry = of(assignment=shops)
    registry.registry = {"shop.a": "registry away", "shop.b": "registry away"}
    assert registry.status()["waiting"] == {pattern: ["registry away"]}
    assert registry.reasons() == ["registry away"]

    none = of(assignment={}, pattern_topics={pattern: 0})
    assert (none.reasons(), list(none.status()["waiting"])) == ([], [pattern])
    only = Health(Config(routes=(RouteConfig(input=pattern),)), "w", none.metrics, none.breaker)
    only.model_available, only.runtime = True, none.runtime
    assert "no topic matches ^shop" in only.reasons()[0]
    assert of(assignment=shops, pattern_topics={pattern: 0}).status()["waiting"] == {}, "found since it was looked for"


def test_advertised_addresses_that_are_not_reached_are_a_reason() -> None:
    """Until the group is joined, and for topics that only such brokers lead; the rest of a worker goes on."""
    where = "brokers advertise what cannot be used from here: 10.9.9.9:9092 (refused)"
    assert health(joined=False, unreachable=where).reasons() == [f"not joined to the consumer group: {where}"]
    waiting = Health(Config(), "w", Metrics(), DeadLetterBreaker(DeliveryConfig(), ("in", "more")))
    waiting.unreachable = where
    assert waiting.reasons()[1] == f"not joined to the consumer group: {where}"
    assert health(unreachable=where).ready() == (True, {"reasons": [], "unreachable": where})
    assert health(unreachable=where).status()["unreachable"] == where
    none = health(unreachable=where, unreachable_topics=frozenset({"in"}))
    assert none.ready() == (False, {"reasons": [where], "unreachable": where})
    assert none.status()["waiting"] == {"in": [where]}
    both = {Partition("in", 0): 1, Partition("more", 0): 2}
    assert health(assignment=both, unreachable=where, unreachable_topics=frozenset({"in"})).ready()[0]


def test_what_is_in_flight_is_of_one_moment() -> None:
    """Not the reviews of now beside windows of half a second ago, whose reviews are durable meanwhile."""
    it = health(in_flight_events=2, in_flight_bytes=700)
    it.observe((), 7)
    it.runtime = cast("KafkaRuntime", Runtime(in_flight_events=0, in_flight_bytes=0))
    assert it.status()["in_flight"] == {"events": 2, "bytes": 700, "windows": 7}
    it.observe((), 0)
    assert it.status()["in_flight"] == {"events": 0, "bytes": 0, "windows": 0}


def test_whoever_is_woken_up_sees_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state, whether it is ready, each reason to pause and each server by itself; a new state begins at nothing."""
    now = 1000.0
    monkeypatch.setattr("consumer.worker.health.time.monotonic", lambda: now)
    well, out = (EndpointStatus(at, state, 0, 1, 0, 0, "", 1.0) for at, state in (("a:1", "ok"), ("b:1", "outage")))
    it = health()
    it.observe((well, well._replace(address="b:1")), 0)
    now = 1060.0
    it.observe((well, out), 0)
    it.runtime = cast("KafkaRuntime", Runtime(paused_topics={"flood": {"in"}}))
    it.observe((well, out), 0)
    now = 1075.5
    it.observe((well, out), 0)
    status = it.status()
    assert [each["state_seconds"] for each in status["model"]["endpoints"]] == [75.5, 15.5]
    assert (status["state"], status["state_seconds"]) == ("paused", 15.5)
    assert (status["ready"], status["ready_seconds"]) == (True, 75.5)
    assert status["paused_seconds"] == {"flood": 15.5}
    it.draining = True
    assert it.status()["state_seconds"] == 0.0, "not looked at yet"
