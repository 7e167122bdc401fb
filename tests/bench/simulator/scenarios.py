"""The situations in which policies are compared: servers, and a trace for a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bench.simulator.server import CPU, GPU, HIGH_FLOOR, Profile, Slowdown
from bench.simulator.simulate import MAX_TOKENS, Lost, Servers
from bench.simulator.trace import (
    REPLAY,
    Event,
    Levels,
    Reviews,
    arrivals,
    burst,
    capacity,
    diurnal,
    one_level,
    steady,
    tiny,
    trace,
    two_levels,
    with_large_event,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

SLOW_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long the traces are, in events."""

    events: int
    backlog: int
    """Of a drain."""
    large_windows: int
    """Windows of the event of 200 KB."""


QUICK: Final = Size(events=2_000, backlog=3_000, large_windows=3_584)
FULL: Final = Size(events=20_000, backlog=100_000, large_windows=3_584)
TINY: Final = Size(events=60, backlog=60, large_windows=120)
"""For tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One situation. ``load`` is the peak of the arrivals as a share of what all servers can do at most."""

    name: str
    load: float
    profile: Profile = GPU
    servers: int = 1
    levels: Callable[[int, random.Random], Levels] = two_levels
    stretch: int = 1
    shape: Callable[[float], float] = steady
    drain: bool = False
    """Everything is there at the start; throughput is what counts."""
    slow: bool = False
    """The first server needs twice as long for a minute, at most a third of the run."""
    lose: bool = False
    """One server dies after a third of the run."""
    others: float = 0.0
    large_event: bool = False
    replay: bool = False
    """Twice as many events are there at the start, in a lane of their own."""

    def build(self, lengths: tuple[int, ...], size: Size, seed: int, *, training: bool) -> tuple[Servers, list[Event]]:
        """Servers and trace; ``lengths`` are those of reviews, in characters."""
        count = size.backlog if self.drain else size.events // (5 if self.stretch > 1 else 1)
        shapes = Reviews(lengths, self.levels, self.stretch).draw(count, seed, training=training)
        servers = Servers(profile=self.profile, count=self.servers, others=self.others)
        if self.drain:
            return servers, trace([0.0] * count, shapes)
        peak = self.load * self.servers * capacity(self.profile, shapes, MAX_TOKENS)
        moments = arrivals(count, peak, self.shape, seed if training else -1 - seed)
        events = trace(moments, shapes)
        third = moments[-1] / 3
        if self.slow:
            servers = replace(servers, slow=Slowdown(third, third + min(SLOW_SECONDS, third), 2.0))
        if self.lose:
            servers = replace(servers, lost=Lost(third, self.servers - 1))
        if self.replay:
            backlog = Reviews(lengths, self.levels).draw(2 * count, seed + 1, training=training)
            return servers, [*(Event(0.0, levels, ordinary=False, lane=REPLAY) for levels in backlog), *events]
        return servers, with_large_event(events, size.large_windows) if self.large_event else events


STRAGGLING: Final = replace(GPU, name="GPU-like, stragglers", straggler_share=0.03, straggler_factor=6.0)

SCENARIOS: Final = (
    Scenario(name="steady, 50 % of capacity", load=0.5),
    Scenario(name="steady, 80 % of capacity", load=0.8),
    Scenario(name="steady, 95 % of capacity", load=0.95),
    Scenario(name="one level, 80 % of capacity", load=0.8, levels=one_level),
    Scenario(name="tiny windows, 80 % of capacity", load=0.8, levels=tiny),
    Scenario(name="diurnal, peak at 90 % of capacity", load=0.9, shape=diurnal),
    Scenario(name="burst x 4, to 150 % of capacity", load=1.5, shape=burst),
    Scenario(name="drain of a backlog", load=1.0, drain=True),
    Scenario(name="drain of a backlog, one level", load=1.0, drain=True, levels=one_level),
    Scenario(name="server twice as slow for a minute, 60 %", load=0.6, slow=True),
    Scenario(name="high floor, 70 %", load=0.7, profile=HIGH_FLOOR),
    Scenario(name="processor sharing, 80 %", load=0.8, profile=CPU),
    Scenario(name="stragglers, 70 %", load=0.7, profile=STRAGGLING),
    Scenario(name="other clients take half the server, 30 %", load=0.3, others=0.5),
    Scenario(name="three servers, one lost, 55 %", load=0.55, servers=3, lose=True),
    Scenario(name="long documents, 70 %", load=0.7, stretch=20),
    Scenario(name="one event of 200 KB among others, 50 %", load=0.5, large_event=True),
    Scenario(name="live topics at 30 % beside a replay", load=0.3, replay=True),
)
