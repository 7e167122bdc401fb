"""Which isolated group is tried next, and when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import virtual_time
from dispatcher_harness import KNOWN_GOOD, Observer, StubClient, window

from consumer.batching.queue import LANE
from consumer.resilience.backoff import Backoff
from consumer.serving.dispatch.batch import Entry, Group
from consumer.serving.dispatch.calls import ModelCalls
from consumer.serving.dispatch.outage import OutageRecovery
from consumer.serving.dispatch.poison_isolation import PoisonIsolation

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Isolation:
    """Poison isolation before a healthy server, with a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.calls = ModelCalls(StubClient(), window(KNOWN_GOOD), "m", Observer(), self.clock)
        recovery = OutageRecovery(self.calls, Backoff(), lambda *_: None)
        self.isolation = PoisonIsolation(self.calls, recovery, lambda low, _: low, self._spawn, self._send)
        self._spawned: list[Coroutine[Any, Any, None]] = []
        self._sent: list[Group] = []

    def _spawn(self, work: Coroutine[Any, Any, None], _: Iterable[Entry]) -> None:
        self._spawned.append(work)

    async def _send(self, group: Group) -> None:
        assert self.calls.in_flight.pop(group).rows == len(group.entries)
        self._sent.append(group)

    async def sent(self) -> Group | None:
        """The group that is sent now, if one is."""
        due = self.isolation.send_next(idle=True)
        if self._spawned:
            assert self.isolation.send_next(idle=True), "it is being tried"
            await self._spawned.pop()
        assert due == bool(self._sent)
        return self._sent.pop() if self._sent else None

    def server_lives(self) -> None:
        """For twenty seconds, with ten calls; none of them of a real window."""
        self.clock.now += 20
        for _ in range(10):
            self.calls.uptime.answered(self.clock.now - 1, self.clock.now, 0)


def groups_of(*sizes: int) -> list[Group]:
    """Groups of so many windows; needs a running loop."""
    loop = asyncio.get_running_loop()
    return [
        Group([Entry(n, 16, 0.0, 0, 0.0, LANE, False, "", window(n), loop.create_future(), n) for n in range(size)])
        for size in sizes
    ]


def test_the_largest_group_goes_first_but_the_smallest_when_the_server_only_dies() -> None:
    """One frees its neighbours soonest; the other shows soonest that it is not the windows. A window whose isolated
    call broke off comes last."""

    async def main() -> None:
        it = Isolation()
        uptime = it.calls.uptime
        small, large, crashed_alone = groups = groups_of(1, 4, 1)
        crashed_alone.crash.alone, crashed_alone.crash.proven = 1, True
        for group in groups:
            it.isolation.add(group, 0.0)
        for real in (1, 0, 0):
            uptime.answered(it.clock.now, it.clock.now, real)
            it.server_lives()
            sent = await it.sent()
            assert sent is (small if uptime.crashes_in_a_row > 1 else large)
            it.isolation.add(sent, 0.0)
            uptime.failed(it.clock.now, isolated=True)
            assert await it.sent() is None, "not while it is away"
        uptime.answered(it.clock.now, it.clock.now, 0)
        assert {await it.sent(), await it.sent()} == {large, small}
        assert await it.sent() is None, "the server must be seen alive without it first"
        it.server_lives()
        assert await it.sent() is crashed_alone
        it.isolation.add(crashed_alone, 0.0)
        assert it.isolation.waiting == 1
        assert it.isolation.take_crashed_alone() == crashed_alone.entries
        assert it.isolation.waiting == 0
        assert not it.isolation.send_next(idle=True)
        assert not it.isolation.active

    virtual_time.run(main())


def test_others_have_the_server_for_as_long_as_they_had_not() -> None:
    """However many isolated groups there are, they take half of it at most."""

    async def main() -> None:
        it = Isolation()
        for group in groups_of(2, 2):
            it.isolation.add(group, 0.0)
        it.calls.uptime.answered(it.clock.now, it.clock.now, 1)
        assert it.isolation.send_next(idle=False), "nothing else is sent until it is idle"
        it.clock.now += 7
        assert await it.sent() is not None
        assert not it.isolation.send_next(idle=True)
        assert it.isolation.watch() == it.clock.now + 7
        it.clock.now += 7
        assert await it.sent() is not None

    virtual_time.run(main())
