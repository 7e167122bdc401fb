"""Windows that are isolated from the start, for what they did under another version that the same server serves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import virtual_time
from dispatcher_harness import KNOWN_GOOD, Observer, StubClient, window

from consumer.batching.policy import LeastTime
from consumer.resilience.crash_evidence import CRASHES, CrashEvidence
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.dispatch.suspected import Suspect, SuspectedWindows, isolated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GIVEN_UP = {"crashes": CRASHES - 1, "alone": CRASHES, "broken": CRASHES, "proven": True, "given_up": True}
AMONG_OTHERS = {"broken": 2}
"""It was isolated together with others, and is innocent, perhaps."""


def run(body: Callable[[Dispatcher], Awaitable[None]]) -> None:
    """Beside a dispatcher that has answered something a while ago, and has nothing else to do."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        policy, good = LeastTime(512, 2), window(KNOWN_GOOD)
        one = Dispatcher({"a:1": StubClient()}, policy, good, "m", Observer(), lambda *_: None, clock, trial=True)
        pump = asyncio.create_task(one.pump())
        await one.submit(window(5), 0.0, 0)
        await asyncio.sleep(2)
        await body(one)
        pump.cancel()

    virtual_time.run(main())


def suspected(one: Dispatcher, **crash: int) -> SuspectedWindows:
    return SuspectedWindows(one, [Suspect(window(6), 0, CrashEvidence(**crash), "a:1")], same_bundle=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("crash", [AMONG_OTHERS, {"broken": 3, "alone": 1}, GIVEN_UP])
def test_it_waits_for_no_other_event(crash: dict[str, int]) -> None:
    """The server is asked whether it lives, also where nothing else is sent there."""

    async def body(one: Dispatcher) -> None:
        async with asyncio.timeout(10):
            await suspected(one, **crash).submit(window(6), 0.0, 0)

    run(body)


def test_what_is_withdrawn_leaves_nothing_behind() -> None:
    """As when its partition was revoked: nobody waits, nothing is isolated, and others are answered."""

    async def body(one: Dispatcher) -> None:
        waiting = suspected(one, **GIVEN_UP).submit(window(6), 0.0, 0)
        await asyncio.sleep(0.1)
        assert one.waiting == 1
        waiting.cancel()
        await one.submit(window(7), 0.0, 0)
        await asyncio.sleep(10)
        (server,) = one.servers
        assert (one.waiting, one.in_flight, server.isolation.active) == (0, 0, False)

    run(body)


def test_what_another_version_gave_up_stays_given_up_when_it_is_moved_again() -> None:
    """As when the stable version changes meanwhile: no other crash clears it, and it waits for no other event."""

    async def body(one: Dispatcher) -> None:
        waiting = suspected(one, **GIVEN_UP).submit(window(6), 0.0, 0, "event")
        await asyncio.sleep(0.1)
        ((suspect,),) = isolated(one).values()
        assert suspect.crash.given_up
        assert (suspect.crash.crashes, suspect.crash.proven) == (CRASHES - 1, True)
        waiting.cancel()

    run(body)
