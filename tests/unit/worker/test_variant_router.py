"""Which of several ways to the model an event goes, and that it is moved to another when its own is closed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from consumer.batching.policy import Call
from consumer.codecs.outputs import ModelUsed
from consumer.config.canary import CanaryConfig
from consumer.events import BadInput, Partition, Place, Work
from consumer.resilience.canary import (
    BACK_SECONDS,
    COLD_SECONDS,
    FEWEST_CALLS,
    FEWEST_REFUSED,
    HUNG_SECONDS,
    RETURN_SECONDS,
)
from consumer.serving.dispatch.batch import Group
from consumer.serving.dispatch.calls import Learned
from consumer.serving.dispatch.endpoint import EndpointStatus
from consumer.serving.protocol import Failure, ServingError
from consumer.serving.refused import State, WindowRefused
from consumer.telemetry.metrics import Metrics
from consumer.worker.failures import is_defect
from consumer.worker.inference import Inference
from consumer.worker.variant_router import SWITCH_SECONDS, VariantRouter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AWAY = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "socket closed")
MISFIT = ServingError(Failure.DEPLOYMENT, "CONTRACT", "another contract")
REFUSED = WindowRefused("BatchFault", ServingError(Failure.BATCH_FAULT, "INVALID_ARGUMENT", "no"), 2)


class Recovery:
    """Of one endpoint."""

    def __init__(self) -> None:
        self.fault: ServingError | None = None
        self.state = State.OK
        self.probes, self.began = 0, 0.0
        self.check: Callable[[], Awaitable[None]]

    def probe_soon(self) -> None:
        self.probes += 1


class Server(SimpleNamespace):
    """One endpoint."""

    @property
    def usable(self) -> bool:
        return self.recovery.fault is None


class Way:
    """A variant whose runner answers when it may, or raises."""

    def __init__(self, name: str, bundle: str = "one") -> None:
        self.name = name
        self.bundle = SimpleNamespace(name=bundle)
        self.recovery = Recovery()
        calls = SimpleNamespace(in_flight={})
        self.recovery.check = self.check
        self.server = Server(
            address="a:1",
            gone=False,
            trial=False,
            reason="",
            recovery=self.recovery,
            calls=calls,
            isolation=SimpleNamespace(active=False),
            suspects=tuple,
            times=SimpleNamespace(answered_at=0.0),
        )
        self.calls: dict[Group, Call] = calls.in_flight
        self.recent, self.health_probes = list[float](), 0
        self.answers_probes = True
        self.learned = Learned()
        self.rates = self.learned.rates
        self.forgotten = 0
        self.dispatcher = SimpleNamespace(
            servers=[self.server], state=State.OK, learned=self.learned, forget_withdrawn=self.forget
        )
        self.runner, self.running, self.unusable, self.windows = self, dict[Any, Place](), "", 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.raises: BaseException | None = None
        self.asked = self.cancelled = 0

    def forget(self) -> None:
        self.forgotten += 1

    async def check(self) -> None:
        self.health_probes += 1
        await asyncio.sleep(0)
        if not self.answers_probes:
            self.recovery.fault = AWAY

    def answers(self, *, probes: bool) -> None:
        """From now on."""
        self.answers_probes = probes
        if probes:
            self.recovery.fault = None

    async def infer(self, text: str, task: Any, work: Work) -> Inference:  # noqa: ARG002
        self.asked += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.raises is not None:
            raise self.raises
        return Inference(None, ModelUsed("m", f"{self.name} {self.bundle.name}", ""), 0.0, 0.0, 0, 0)  # type: ignore[arg-type]


class Text(str):
    """One that can be watched."""


IN_FLIGHT = Group([])
TASK = SimpleNamespace(name="sentiment")


class Stage:
    """A router with its ways, and what it reported."""

    def __init__(self, *ways: Way, share: float | None = None) -> None:
        self.metrics, self.states = Metrics(), list[tuple[State, str]]()
        canary = None if share is None else CanaryConfig(label="canary", share=share)
        self.time = 0.0
        self.router = VariantRouter(ways, canary, self.metrics, self._state, lambda: self.time)  # type: ignore[arg-type]
        self.router.look()

    def _state(self, state: State, error: ServingError | None) -> None:
        self.states.append((state, error.message if error else ""))

    async def look_after(self, seconds: float) -> None:
        """As twice a second, so long."""
        for _ in range(round(seconds / 0.5)):
            self.time += 0.5
            self.router.look()
            for _ in range(3):
                await asyncio.sleep(0)

    async def infer(self, work: Work) -> Inference:
        return await self.router.infer("text", TASK, work)  # type: ignore[arg-type]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def work(key: bytes | None = b"k", offset: int = 0) -> Work:
    return Work(Place(Partition("t", 0), 0, offset), offset, 0, key=key)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await body()

    asyncio.run(main())


async def begun(way: Way) -> None:
    while not way.asked:
        await asyncio.sleep(0)


def test_an_event_goes_to_the_bundle_that_fits_and_moves_when_another_one_does() -> None:
    """Level 0 again, at the other bundle; the one that fits no more is cancelled, and both are asked to try at once."""

    async def body() -> None:
        first, second = Way("stable"), Way("stable", "two")
        second.recovery.fault = MISFIT
        stage = Stage(first, second)
        first.may_answer.clear()
        event = work()
        waiting = asyncio.create_task(stage.infer(event))
        await begun(first)
        first.recovery.fault = MISFIT
        stage.router.look()
        assert first.cancelled == 0  # nobody else could answer it
        assert second.recovery.probes == 1
        second.recovery.fault = None
        stage.router.look()
        inference = await waiting
        assert (inference.model.version, inference.restarts) == ("stable two", 1)
        assert first.cancelled == 1
        assert event.variant is second
        first.windows, before = 2, first.forgotten
        stage.router.look()
        assert first.forgotten == before + 1  # its windows of the event would stay there
        assert (await stage.infer(work())).restarts == 0
        assert stage.states == []

    run(body)


def test_a_lost_call_moves_nobody() -> None:
    """While two bundles are served, one server's blip would send its events to and fro."""

    async def body() -> None:
        first, second = Way("stable"), Way("stable", "two")
        stage = Stage(first, second)
        first.may_answer.clear()
        second.windows = 100
        waiting = asyncio.create_task(stage.infer(work()))
        await begun(first)
        first.recovery.fault = AWAY
        stage.router.look()
        first.recovery.fault = None
        first.may_answer.set()
        assert (await waiting).model.version == "stable one"

    run(body)


def test_the_tasks_of_an_event_go_to_one_bundle_while_several_are_in_use() -> None:
    """Also when there is less to do at another one; new events go there."""

    async def body() -> None:
        first, second = Way("stable"), Way("stable", "two")
        second.windows = 1
        stage, event = Stage(first, second), work()
        assert (await stage.infer(event)).model.version == "stable one"
        first.windows = 9
        assert (await stage.infer(event)).model.version == "stable one"
        assert (await stage.infer(work())).model.version == "stable two"

    run(body)


def test_only_when_no_bundle_fits_the_model_cannot_be_used_and_all_are_named() -> None:
    """Whatever the canary does."""

    async def body() -> None:
        first, second, canary = Way("stable"), Way("stable", "two"), Way("canary")
        stage = Stage(first, second, canary, share=0.5)
        for way in (first, second):
            way.recovery.fault, way.dispatcher.state = MISFIT, State.DEPLOYMENT_FAULT
            stage.router.look()
        stage.time += SWITCH_SECONDS
        stage.router.look()
        ((state, message),) = stage.states
        assert state is State.DEPLOYMENT_FAULT
        assert "another contract" in message
        second.recovery.fault = None
        stage.router.look()
        assert stage.states[1:] == [(State.OK, "")]

    run(body)


def test_a_label_that_moves_to_and_fro_within_a_minute_pauses_nothing() -> None:
    """A bundle that fits no more for the second time is at fault at once, and one that fits again still is for a while:
    that none can be used for the milliseconds in between is no state of the worker's.
    """

    async def body() -> None:
        first, second = Way("stable"), Way("stable", "two")
        second.recovery.fault = MISFIT
        stage = Stage(first, second)
        for way in (first, second):
            way.dispatcher.state = State.DEPLOYMENT_FAULT
        for now, before in ((second, first), (first, second)):
            before.recovery.fault = MISFIT
            stage.router.look()
            now.recovery.fault = None
            stage.router.look()
            assert stage.router.in_use("stable").bundle.name == now.bundle.name
            stage.time += 5.0
            stage.router.look()
        assert stage.states == []

    run(body)


def test_a_bundle_that_fits_before_the_other_one_has_met_the_new_version_is_the_one_in_use() -> None:
    """Its health probe comes first where few events do. The log and /status name it, and a short absence changes
    nothing.
    """

    async def body() -> None:
        first, second = Way("stable"), Way("stable", "two")
        second.recovery.fault = MISFIT
        stage = Stage(first, second)
        with structlog.testing.capture_logs() as lines:
            second.recovery.fault = None
            stage.router.look()
            assert stage.router.in_use("stable").bundle.name == "two"
            first.recovery.fault = MISFIT
            stage.router.look()
            for fault in (MISFIT, None):
                second.recovery.fault = fault
                stage.router.look()
        assert [each["bundle"] for each in lines if each["event"] == "this bundle is in use"] == ["two"]

    run(body)


def test_a_revoked_event_is_withdrawn() -> None:
    """Cancelling ends its extraction, too."""

    async def body() -> None:
        stable = Way("stable")
        stage = Stage(stable, Way("canary"), share=0.0)
        stable.may_answer.clear()
        waiting = asyncio.create_task(stage.infer(work()))
        await begun(stable)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert stable.cancelled == 1
        assert not stable.running

    run(body)


def test_an_event_stays_where_it_began_and_a_new_one_follows_the_share() -> None:
    """All tasks of an event, also when the share changes in between; without a key, by its place."""

    async def body() -> None:
        stage = Stage(Way("stable"), Way("canary"), share=1.0)
        began = work()
        assert (await stage.infer(began)).model.version == "canary one"
        stage.router.change(CanaryConfig(label="canary", share=0.0))
        assert (await stage.infer(began)).model.version == "canary one"
        assert (await stage.infer(work())).model.version == "stable one"
        stage.router.change(CanaryConfig(label="canary", share=0.5))
        versions = [(await stage.infer(work(None, offset))).model.version for offset in range(200)]
        assert 60 < versions.count("canary one") < 140
        assert versions == [(await stage.infer(work(None, offset))).model.version for offset in range(200)]
        assert stage.sample("rexstream_canary_share") == 0.5
        stage.router.change(None)
        assert stage.sample("rexstream_canary_share") == 0

    run(body)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (REFUSED, "BatchFault: INVALID_ARGUMENT: no"),
        (BadInput("extract", "TooManyModelCalls", "too many for 好"), "TooManyModelCalls"),
        (KeyError("好"), "KeyError in test_variant_router.py"),
    ],
)
def test_what_the_canary_cannot_answer_is_the_stable_versions(error: Exception, why: str) -> None:
    """No dead letter of the canary's; many of them take its share away, loudly. What both refuse counts for nothing."""

    async def body() -> None:
        stable, canary = Way("stable"), Way("canary")
        stage = Stage(stable, canary, share=1.0)
        canary.raises = error
        stable.raises = REFUSED
        for _ in range(10):
            with pytest.raises(WindowRefused):
                await stage.infer(work())
        stable.raises = None
        with structlog.testing.capture_logs() as lines:
            for _ in range(FEWEST_REFUSED):
                inference = await stage.infer(work())
                assert (inference.model.version, inference.restarts) == ("stable one", 1)
        (line,) = [each for each in lines if each["log_level"] == "error"]
        told = [each["reason"] for each in lines if each["log_level"] == "warning"]
        assert len(told) == FEWEST_REFUSED
        assert told[0].startswith(why)
        assert line["reason"] == "refused"
        assert f"; the last one: {why}" in line["detail"]
        assert "好" not in line["detail"]
        asked = canary.asked
        await stage.infer(work())
        assert canary.asked == asked
        assert stage.sample("rexstream_canary_fallback") == 1
        assert stage.sample("rexstream_canary_fallbacks_total", reason="refused") == 1
        stage.router.change(CanaryConfig(label="canary", share=0.5))
        assert stage.sample("rexstream_canary_fallback") == 0

    run(body)


def test_a_canary_whose_label_moves_to_a_version_of_another_bundle_keeps_its_events() -> None:
    """That bundle is asked at once: no error, and nothing goes to the stable version. What fits none for a second falls
    back.
    """

    async def body() -> None:
        stable, one, two = Way("stable"), Way("canary"), Way("canary", "two")
        two.recovery.fault = MISFIT
        stage = Stage(stable, one, two, share=1.0)
        await stage.router.all_tried()
        one.may_answer.clear()
        waiting = asyncio.create_task(stage.infer(work()))
        await begun(one)
        with structlog.testing.capture_logs() as lines:
            one.recovery.fault = MISFIT
            stage.router.look()
            stage.time += SWITCH_SECONDS / 2
            stage.router.look()
            two.recovery.fault = None
            stage.router.look()
            assert (await waiting).model.version == "canary two"
        assert [each["event"] for each in lines] == ["this bundle is in use"]
        assert two.recovery.probes == 1
        two.recovery.fault = MISFIT
        stage.router.look()
        assert not stage.sample("rexstream_canary_fallback")
        stage.time += SWITCH_SECONDS
        stage.router.look()
        assert stage.sample("rexstream_canary_fallbacks_total", reason="unavailable") == 1
        assert (await stage.infer(work())).model.version == "stable one"

    run(body)


def test_a_memory_error_is_nobodys_refusal() -> None:
    """The worker ends for it, as it does without a canary."""

    async def body() -> None:
        canary = Way("canary")
        canary.raises = MemoryError()
        with pytest.raises(MemoryError):
            await Stage(Way("stable"), canary, share=1.0).infer(work())

    run(body)


def test_an_error_leaves_nothing_to_the_garbage_collector() -> None:
    """It looks after 100,000 new objects only, and thousands of texts that are too long could wait for it."""

    async def body() -> None:
        stable = Way("stable")
        stage = Stage(stable, Way("canary"), share=0.0)
        stable.raises = BadInput("extract", "TextTooLong", "too long")
        held = weakref.ref(text := Text("text"))
        gc.disable()
        try:
            with pytest.raises(BadInput) as raised:
                await stage.router.infer(text, TASK, work())  # type: ignore[arg-type]
            stable.raises = None
            del raised, text
            assert held() is None
        finally:
            gc.enable()

    run(body)


def test_what_the_canary_made_is_gone_while_the_stable_version_is_asked() -> None:
    """The frames of its error hold the extraction, whose bytes were given back."""

    async def body() -> None:
        canary, stable = Way("canary"), Way("stable")
        canary.raises = BadInput("extract", "TooManyWindows", "too many")
        held = weakref.ref(canary.raises)
        stable.may_answer.clear()
        asked = asyncio.create_task(Stage(stable, canary, share=1.0).infer(work()))
        await begun(stable)
        canary.raises = None
        assert held() is None
        stable.may_answer.set()
        assert (await asked).restarts == 1

    run(body)


def test_an_extraction_that_ends_as_cancelled_is_not_begun_again_for_ever() -> None:
    """Nobody asked for it: it is a defect, as without several variants, and the event gets its outcome."""

    async def body() -> None:
        stable = Way("stable")
        stage = Stage(stable, Way("canary"), share=0.0)
        stable.raises = asyncio.CancelledError()
        with pytest.raises(asyncio.CancelledError) as raised:
            await stage.infer(work())
        assert is_defect(raised.value)
        assert stable.asked == 1

    run(body)


def test_a_canary_without_a_share_is_missed_by_nobody() -> None:
    """Workers know it before its label is given: no error, no alert. An event that had begun with it is moved."""

    async def body() -> None:
        stable, canary = Way("stable"), Way("canary")
        stage = Stage(stable, canary, share=1.0)
        await stage.router.all_tried()
        canary.may_answer.clear()
        waiting = asyncio.create_task(stage.infer(work()))
        await begun(canary)
        stage.router.change(CanaryConfig(label="canary", share=0.0))
        with structlog.testing.capture_logs() as lines:
            canary.recovery.fault = MISFIT
            stage.router.look()
            assert (await waiting).model.version == "stable one"
            assert not stage.sample("rexstream_canary_fallback")
            assert [each["log_level"] for each in lines] == ["info"]
            stage.router.change(CanaryConfig(label="canary", share=0.1))
            assert [each["log_level"] for each in lines] == ["info", "error"]
            assert stage.sample("rexstream_canary_fallback") == 1
            stage.router.change(CanaryConfig(label="canary", share=0.0))
            assert stage.sample("rexstream_canary_fallback") == 0
        assert stage.sample("rexstream_canary_fallbacks_total", reason="unavailable") == 1
        assert "error" not in [each["log_level"] for each in lines[2:]]

    run(body)


def test_a_slow_canary_is_tried_again_when_its_share_is_changed() -> None:
    """Without what its calls took before: it gets no calls that could show otherwise."""

    async def body() -> None:
        stable, canary = Way("stable"), Way("canary")
        stage = Stage(stable, canary, share=1.0)
        await stage.router.all_tried()
        stable.rates += [1.0] * FEWEST_CALLS
        canary.rates += [9.0] * FEWEST_CALLS
        stage.router.look()
        assert (await stage.infer(work())).model.version == "stable one"
        stage.router.change(CanaryConfig(label="canary", share=0.5))
        stage.router.look()
        assert not stage.sample("rexstream_canary_fallback")
        assert (await stage.infer(work(b"k"))).model.version == "canary one"
        canary.rates += [9.0] * FEWEST_CALLS
        stage.router.look()
        assert stage.sample("rexstream_canary_fallbacks_total", reason="slow") == 2

    run(body)


@pytest.mark.parametrize("reason", ["unavailable", "slow"])
def test_what_waits_at_a_canary_that_falls_back_is_answered_by_the_stable_version(reason: str) -> None:
    """At once, with the reason in the log."""

    async def body() -> None:
        stable, canary = Way("stable"), Way("canary")
        stage = Stage(stable, canary, share=1.0)
        await stage.router.all_tried()
        canary.may_answer.clear()
        waiting = asyncio.create_task(stage.infer(work()))
        await begun(canary)
        if reason == "slow":
            stable.rates += [1.0] * FEWEST_CALLS
            canary.rates += [9.0] * FEWEST_CALLS
        else:
            canary.recovery.fault = MISFIT
        with structlog.testing.capture_logs() as lines:
            stage.router.look()
        assert [(each["log_level"], each["reason"]) for each in lines if "reason" in each] == [("error", reason)]
        assert (await waiting).model.version == "stable one"
        assert stage.router.status()["canary"]["fallback"] == reason  # type: ignore[index]

    run(body)


def test_an_address_that_vanished_and_came_back_counts_its_failures_anew() -> None:
    """It is another server; and addresses of pods would add up for as long as the worker runs."""

    def at(*found: tuple[str, int]) -> list[EndpointStatus]:
        return [EndpointStatus(address, "ok", 0, 9, failed, 0, "", 1.0) for address, failed in found]

    async def body() -> None:
        one, two = Way("stable"), Way("stable", "two")
        stage = Stage(one, two)
        for way in (one, two):
            way.dispatcher.endpoints = at(("a:1", 3))
        assert [each.failed for each in stage.router.shown.endpoints()] == [6]
        for way in (one, two):
            way.dispatcher.endpoints = at(("b:1", 1))
        assert [each.failed for each in stage.router.shown.endpoints()] == [2]
        for way in (one, two):
            way.dispatcher.endpoints = at(("a:1", 0), ("b:1", 1))
        assert [each.failed for each in stage.router.shown.endpoints()] == [0, 2]

    run(body)


async def warm(share: float = 1.0) -> tuple[Stage, Way, Way]:
    """A stage whose canary has answered many calls, with an event at it whose call has just left."""
    stable, canary = Way("stable"), Way("canary")
    stage = Stage(stable, canary, share=share)
    await stage.router.all_tried()
    canary.rates += [1.0] * FEWEST_CALLS
    stable.rates += [1.0] * FEWEST_CALLS
    canary.calls[IN_FLIGHT], canary.windows = Call(4, 64, stage.time), 4
    return stage, stable, canary


def test_a_canary_whose_call_hangs_loses_its_events_at_once() -> None:
    """When the stable version answered a health probe beside it; it gets them back once, and not a second time."""

    async def body() -> None:
        stage, stable, canary = await warm()
        canary.may_answer.clear()
        waiting = asyncio.create_task(stage.infer(work()))
        await begun(canary)
        with structlog.testing.capture_logs() as lines:
            await stage.look_after(HUNG_SECONDS)
            assert stable.health_probes == 0
            await stage.look_after(1.5)
        assert [(each["log_level"], each["reason"]) for each in lines] == [("error", "unavailable")]
        assert "a:1: a call of 4 windows is not answered after" in lines[0]["detail"]
        assert (await waiting).model.version == "stable one"
        assert stable.health_probes == 1
        await stage.look_after(2 * BACK_SECONDS)
        assert stage.sample("rexstream_canary_fallback") == 1  # the call is still under way
        canary.calls.clear()
        canary.windows = 0
        await stage.look_after(BACK_SECONDS + 1)
        assert stage.sample("rexstream_canary_fallback") == 0
        canary.windows = 4
        canary.calls[IN_FLIGHT] = Call(4, 64, stage.time)
        await stage.look_after(HUNG_SECONDS + 1.5)
        assert stage.sample("rexstream_canary_fallbacks_total", reason="slow") == 1

    run(body)


def test_a_server_that_hangs_is_no_fault_of_the_canary() -> None:
    """Whether the stable version has a call there, or only a health probe that is not answered."""

    async def body() -> None:
        stage, stable, canary = await warm()
        stable.answers(probes=False)
        await stage.look_after(60)
        assert stable.health_probes == 1
        assert stable.recovery.fault is AWAY
        assert not stage.sample("rexstream_canary_fallback")
        stable.answers(probes=True)
        stable.calls[IN_FLIGHT] = Call(1, 16, stage.time - 59)
        await stage.look_after(60)
        assert not stage.sample("rexstream_canary_fallback")
        stable.calls.clear()
        stable.recent = [30.0]
        canary.calls[IN_FLIGHT] = Call(4, 64, stage.time)
        canary.server.times.answered_at = stage.time
        await stage.look_after(80)
        assert not stage.sample("rexstream_canary_fallback")
        await stage.look_after(12)
        assert stage.sample("rexstream_canary_fallback") == 1

    run(body)


def test_a_server_that_goes_on_answers_both() -> None:
    """Who is first means nothing."""

    async def body() -> None:
        stage, stable, canary = await warm()
        stable.answers(probes=False)
        await stage.look_after(HUNG_SECONDS + 2)
        stable.answers(probes=True)
        await stage.look_after(0.5)
        stage.time += 0.1
        stage.router.look()
        canary.calls.clear()
        canary.windows = 0
        await stage.look_after(5)
        assert not stage.sample("rexstream_canary_fallback")

    run(body)


def test_a_cold_canary_has_more_time() -> None:
    """The first calls of a model that was not warmed up. Its call may run out of time first: that is seen, too."""

    async def body() -> None:
        stage, _, canary = await warm()
        canary.rates.clear()
        await stage.look_after(COLD_SECONDS)
        assert not stage.sample("rexstream_canary_fallback")
        canary.calls.clear()
        canary.recovery.fault = ServingError(Failure.TRANSIENT, "DEADLINE_EXCEEDED", "")
        await stage.look_after(RETURN_SECONDS)
        assert not stage.sample("rexstream_canary_fallback")
        await stage.look_after(1.5)
        assert stage.sample("rexstream_canary_fallback") == 1
        canary.windows = 0
        await stage.look_after(2 * BACK_SECONDS)
        assert stage.sample("rexstream_canary_fallback") == 1

    run(body)


def test_a_crash_of_the_server_is_no_fault_of_the_canary() -> None:
    """The stable version has no call there and looks well; or it is back first, and the canary a moment later."""

    async def body() -> None:
        stage, stable, canary = await warm()
        canary.calls.clear()
        canary.windows = 0
        canary.recovery.fault, canary.recovery.state = AWAY, State.OUTAGE
        stable.answers(probes=False)
        await stage.look_after(20)
        stable.answers(probes=True)
        await stage.look_after(1.5)
        assert canary.recovery.probes > 0
        assert not stage.sample("rexstream_canary_fallback")
        canary.recovery.fault, canary.recovery.state = None, State.OK
        await stage.look_after(20)
        assert not stage.sample("rexstream_canary_fallback")
        canary.recovery.fault, canary.recovery.state, canary.recovery.began = AWAY, State.OUTAGE, stage.time + 0.5
        await stage.look_after(RETURN_SECONDS)
        assert not stage.sample("rexstream_canary_fallback")
        await stage.look_after(1.5)
        assert stage.sample("rexstream_canary_fallbacks_total", reason="unavailable") == 1

    run(body)


def test_a_canary_that_is_always_busy_loses_its_events() -> None:
    """Its calls are refused and made again for ever: none hangs, and none is answered. Not while one is answered now
    and then, nor while a window that may have ended the server has to wait.
    """

    async def body() -> None:
        stage, _, canary = await warm()
        canary.calls.clear()
        for _ in range(10):
            await stage.look_after(COLD_SECONDS - 1)
            canary.server.times.answered_at = stage.time
        canary.server.isolation.active = True
        await stage.look_after(10 * COLD_SECONDS)
        assert not stage.sample("rexstream_canary_fallback")
        canary.server.isolation.active = False
        await stage.look_after(COLD_SECONDS + RETURN_SECONDS + 2)
        assert stage.sample("rexstream_canary_fallback") == 1
        assert "of 4 windows none is answered for" in stage.router.fallback.detail

    run(body)


def test_what_was_taken_away_from_a_bundle_of_the_canary_that_fits_no_more_is_no_fault_of_it() -> None:
    """Its dispatcher keeps windows until it sends again, for hours perhaps: the other bundle answers meanwhile."""

    async def body() -> None:
        before, now = Way("canary", "one"), Way("canary", "two")
        before.recovery.fault = MISFIT
        stage = Stage(Way("stable"), before, now, share=1.0)
        await stage.router.all_tried()
        before.windows, before.calls[IN_FLIGHT] = 4, Call(4, 64, stage.time)
        await stage.look_after(10 * COLD_SECONDS)
        assert stage.router.fallback.reason is None
        assert (await stage.infer(work())).model.version == "canary two"

    run(body)
