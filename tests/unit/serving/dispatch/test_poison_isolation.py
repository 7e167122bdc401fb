"""Who is tried next."""

from __future__ import annotations

import asyncio

import virtual_time
from dispatcher_harness import window

from consumer.batching.policy import Pending
from consumer.resilience.crash_evidence import ServerUptime
from consumer.serving.dispatch.batch import Entry, Group
from consumer.serving.dispatch.poison_isolation import PoisonIsolation


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def suspects(*sizes: int) -> list[Group]:
    """Groups of so many windows; needs a running loop."""
    loop = asyncio.get_running_loop()
    return [
        Group([Entry(window(n), Pending(n, 16, 0.0, 0, 0.0), loop.create_future(), n) for n in range(size)])
        for size in sizes
    ]


def test_the_largest_group_goes_first_but_the_smallest_when_the_server_only_dies() -> None:
    """One frees its innocents soonest; the other shows soonest that it is not the windows. Known suspects come last."""

    async def main() -> None:
        exposure, clock = ServerUptime(), Clock()
        quarantine = PoisonIsolation(exposure, clock, lambda low, _: low)
        small, large, known = groups = suspects(1, 4, 1)
        known.crash.alone = 1
        for group in groups:
            quarantine.add(group, 0.0)
        for real in (1, 0, 0):
            exposure.answered(clock.now, clock.now, real)
            clock.now += 20
            for _ in range(10):
                exposure.answered(clock.now - 1, clock.now, 0)
            assert quarantine.due() is (small if exposure.barren > 1 else large)
            exposure.failed(clock.now, suspect_alone=True)
            assert quarantine.due() is None, "not while it is away"
        quarantine.take(large)
        quarantine.take(small)
        exposure.answered(clock.now, clock.now, 0)
        assert quarantine.due() is None, "it needs its control"
        clock.now += 20
        for _ in range(10):
            exposure.answered(clock.now - 1, clock.now, 0)
        assert quarantine.due() is known
        assert quarantine.crashed_alone() == known.entries
        assert quarantine.waiting == 0

    virtual_time.run(main())


def test_others_have_the_server_for_as_long_as_they_had_not() -> None:
    """However many suspects there are, they take half of it at most."""

    async def main() -> None:
        exposure, clock = ServerUptime(), Clock()
        quarantine = PoisonIsolation(exposure, clock, lambda low, _: low)
        for group in suspects(2, 2):
            quarantine.add(group, 0.0)
        exposure.answered(clock.now, clock.now, 1)
        first = quarantine.due()
        assert first is not None
        quarantine.take(first)
        began = clock.now
        clock.now += 7
        quarantine.tried(began)
        assert quarantine.due() is None
        assert quarantine.wake_at() == clock.now + 7
        clock.now += 7
        assert quarantine.due() is not None

    virtual_time.run(main())
