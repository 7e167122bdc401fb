"""Whether a dispatcher can be used, as those see it who have another one; and a probe that need not wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import virtual_time
from dispatcher_harness import KNOWN_GOOD, UNAVAILABLE, WRONG_SIGNATURE, Observer, StubClient, until, window

from consumer.batching.policy import LeastTime
from consumer.resilience.backoff import Backoff
from consumer.resilience.canary import HUNG_SECONDS
from consumer.serving.dispatch.calls import FOREIGN_TRIES
from consumer.serving.dispatch.dispatcher import Dispatcher, State
from consumer.serving.dispatch.endpoint import unusable
from consumer.serving.protocol import Failure, ServingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer


def dispatcher(client: StubClient, *, trial: bool = False, pause: float = 0.5) -> Dispatcher:
    clock = asyncio.get_running_loop().time
    backoff = Backoff(limit=pause, least=pause)
    policy, observer = LeastTime(512, 2), Observer()
    return Dispatcher(
        {"a:1": client}, policy, window(KNOWN_GOOD), "m", observer, lambda *_: None, clock, backoff, trial=trial
    )


def test_a_misfit_is_unusable_at_once_and_a_lost_call_only_when_it_lasts() -> None:
    """Windows of a lost call wait a moment; those of a misfit would wait for somebody to act."""

    async def main() -> None:
        client = StubClient()
        one = dispatcher(client)
        pump = asyncio.create_task(one.pump())
        await one.submit(window(7), 0.0, 0)
        assert unusable(one.servers) == ""
        for error, at_once in ((UNAVAILABLE, False), (WRONG_SIGNATURE, True)):
            client.fail = lambda _, error=error: error  # type: ignore[misc]
            waiting = one.submit(window(8), 0.0, 0)
            await asyncio.sleep(0.01)
            assert bool(unusable(one.servers)) == at_once
            await asyncio.sleep(5)
            assert unusable(one.servers) == f"a:1: {error.code}: {error.message}"
            client.fail = lambda _: None
            await waiting
            assert unusable(one.servers) == ""
            await until(State.OK, one)
        pump.cancel()

    virtual_time.run(main())


def test_with_a_trial_nothing_is_sent_before_a_health_probe_was_answered() -> None:
    """Not to a model that may not fit."""

    async def main() -> None:
        client = StubClient(lambda _: WRONG_SIGNATURE)
        one = dispatcher(client, trial=True)
        assert unusable(one.servers) == "a:1: it has answered nothing yet"
        pump = asyncio.create_task(one.pump())
        waiting = one.submit(window(7), 0.0, 0)
        await asyncio.sleep(30)
        assert all(call == [KNOWN_GOOD] for call in client.calls)
        assert "no such signature" in unusable(one.servers)
        client.fail = lambda _: None
        await waiting
        assert unusable(one.servers) == ""
        pump.cancel()

    virtual_time.run(main())


def test_the_first_probe_that_fails_says_why_it_cannot_be_used() -> None:
    """Also before that lasts: a canary falls back at once, and its reason is what people read."""

    async def main() -> None:
        one = dispatcher(StubClient(lambda _: UNAVAILABLE), trial=True)
        pump = asyncio.create_task(one.pump())
        await asyncio.sleep(0.01)
        assert unusable(one.servers) == f"a:1: {UNAVAILABLE.code}: {UNAVAILABLE.message}"
        pump.cancel()

    virtual_time.run(main())


@pytest.mark.parametrize("code", ["CONTRACT", "INVALID_ARGUMENT"])
def test_where_several_are_tried_a_foreign_answer_is_asked_for_again_at_once(code: str) -> None:
    """A balancer may have asked a server of the other version; only when that goes on is this one unusable."""
    foreign = ServingError(Failure.DEPLOYMENT, code, "another version's")

    async def main() -> None:
        for trial, times in ((True, FOREIGN_TRIES), (False, 1)):
            client = StubClient()
            one = dispatcher(client, trial=trial)
            pump = asyncio.create_task(one.pump())
            await one.submit(window(7), 0.0, 0)
            left = times - 1

            def fail(marks: list[int]) -> ServingError | None:
                nonlocal left
                left -= 1
                return foreign if marks != [KNOWN_GOOD] and left >= 0 else None

            client.fail = fail
            await one.submit(window(8), 0.0, 0)
            assert client.calls[-times:] == [[8]] * times
            assert unusable(one.servers) == ""
            client.calls.clear()
            left = times
            await one.submit(window(9), 0.0, 0)
            assert client.calls[: times + 1] == [[9]] * times + [[KNOWN_GOOD]]
            pump.cancel()

    virtual_time.run(main())


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 1.9, 4.0])
def test_foreign_answers_are_not_asked_for_for_long(seconds: float) -> None:
    """Where all servers have the other version its events wait for each try, and a canary's call would seem to hang."""
    foreign = ServingError(Failure.DEPLOYMENT, "CONTRACT", "another version's")

    class Slow(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            await asyncio.sleep(seconds)
            return await super().predict(windows, padded_length, timeout)

    async def main() -> None:
        client = Slow()
        one = dispatcher(client, trial=True)
        pump = asyncio.create_task(one.pump())
        await one.submit(window(7), 0.0, 0)
        client.fail = lambda _: foreign
        began = asyncio.get_running_loop().time()
        waiting = one.submit(window(8), 0.0, 0)
        while not unusable(one.servers):
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began < max(HUNG_SECONDS, 1.1 * seconds)
        waiting.cancel()
        pump.cancel()

    virtual_time.run(main())


def test_a_probe_that_is_asked_for_is_made_at_once() -> None:
    """Whatever pause it was in; without a fault nothing is asked."""

    async def main() -> None:
        client = StubClient(lambda _: WRONG_SIGNATURE)
        one = dispatcher(client, trial=True, pause=1000.0)
        pump = asyncio.create_task(one.pump())
        await asyncio.sleep(10)
        client.fail = lambda _: None
        for server in one.servers:
            server.recovery.probe_soon()
        await asyncio.sleep(0.1)
        assert unusable(one.servers) == ""
        await asyncio.sleep(20)  # until what follows a fault is over: one more probe before its state is ok
        calls = len(client.calls)
        for server in one.servers:
            server.recovery.probe_soon()
        await asyncio.sleep(5)
        assert len(client.calls) == calls
        pump.cancel()

    virtual_time.run(main())


def test_what_was_withdrawn_is_forgotten_where_nothing_can_be_sent() -> None:
    """Thousands of windows of a version that is gone would stay; those that somebody waits for do."""

    async def main() -> None:
        client = StubClient()
        one = dispatcher(client, trial=True)
        pump = asyncio.create_task(one.pump())
        await one.submit(window(7), 0.0, 0)
        client.fail = lambda _: WRONG_SIGNATURE
        waiting = [one.submit(window(mark), 0.0, 0) for mark in range(100, 400)]
        await asyncio.sleep(5)
        assert one.waiting == 300
        for each in waiting[:-1]:
            each.cancel()
        one.forget_withdrawn()
        in_calls = 2 * 512 // 16  # those of the two calls that showed it wait for the server, of whatever version
        assert 1 <= one.waiting <= in_calls + 1
        client.fail = lambda _: None
        await waiting[-1]
        await asyncio.sleep(5)
        assert one.waiting == 0
        pump.cancel()

    virtual_time.run(main())
