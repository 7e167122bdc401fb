"""How many workers and model servers a number of reviews a day needs, and how long a review waits at the peak. Pure.

Everything follows from three things that were measured (windows of reviews, CPU of a worker, cost of a call) and the
assumptions below; the wait is the simulator's.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.simulator.rivals import LeastTimePolicy
from bench.simulator.server import Profile
from bench.simulator.simulate import Servers, Simulation
from bench.simulator.trace import Levels, arrivals, capacity, steady, trace

from consumer.batching.policy import ASSUMED, CallCost

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE: Final = Path(__file__).parent
MILLIONS_A_DAY: Final = (1, 5, 50)
PEAK: Final = 5
"""Times the mean of the day."""
BUSY: Final = 0.7
"""Share of its time that a model server or the core of a worker has something to do at the peak, at most."""
SPARE: Final = 1
"""Workers and servers more than that: one may be lost or replaced at the peak."""
GOAL_SECONDS: Final = 2.0
EVENTS: Final = 2_000
SEEDS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKind:
    """A model on a machine, and how calls are sent to it."""

    name: str
    """In ``recorded.json``."""
    title: str
    origin: str
    """Where its cost comes from, in a sentence."""
    cost: CallCost
    max_tokens: int
    calls: int
    """In flight for each server."""
    sharing: bool
    """Calls at the server advance together; otherwise one waits for the other."""

    @property
    def simulated(self) -> Profile:
        """With the noise that the simulator gives every server."""
        cost = self.cost
        return Profile(self.title, cost.fixed, cost.per_token, cost.per_pair, cost.floor, sharing=self.sharing)


class Recorded(NamedTuple):
    """What ``record.py`` measured."""

    machine: str
    date: str
    tasks: tuple[str, ...]
    cpu_ms: dict[str, float]
    """Of a worker, for one review with all tasks, while a server of each kind is the bottleneck."""
    reviews: tuple[Levels, ...]
    """Lengths in tokens of the windows of each level, of each sample review, all tasks together."""


class Plan(NamedTuple):
    """For one number of reviews a day."""

    millions: int
    peak: float
    """Reviews a second."""
    workers: int
    servers: int
    """Both with ``SPARE``."""
    p50: float
    p99: float
    """Seconds at the peak, without the spare ones."""


def recorded(file: Path = HERE / "recorded.json") -> Recorded:
    """Read them."""
    content = json.loads(file.read_text("utf-8"))
    reviews = tuple(tuple(tuple(level) for level in review) for review in content["reviews"])
    return Recorded(content["machine"], content["date"], tuple(content["tasks"]), content["cpu_ms_per_review"], reviews)


def measured_cpu(file: Path = HERE / "demo-model-one-core.json") -> ServerKind:
    """The demo model, as ``rexstream tune`` measured it."""
    profile: dict[str, Any] = json.loads(file.read_text("utf-8"))
    cost, batching = profile["cost"], profile["recommended"]["batching"]
    return ServerKind(
        name="demo",
        title="The demo model on one CPU core",
        origin=f"Measured by `rexstream tune`, {profile['date'][:10]} (`tests/bench/planning/{file.name}`).",
        cost=CallCost(cost["floor_seconds"], cost["fixed_seconds"], cost["linear_seconds"], cost["square_seconds"]),
        max_tokens=batching["max_tokens"],
        calls=batching["max_in_flight"],
        sharing=True,
    )


def assumed_accelerator() -> ServerKind:
    """What a worker assumes of a server that it was told nothing of."""
    return ServerKind(
        name="assumed",
        title="An assumed accelerator",
        origin="Not measured: what a worker assumes of a server (`ASSUMED` in `consumer/batching/policy.py`).",
        cost=ASSUMED,
        max_tokens=16_384,
        calls=2,
        sharing=False,
    )


def rate_of(kind: ServerKind, found: Recorded) -> float:
    """Reviews a second of one server, with all windows sorted by length in full calls."""
    return capacity(kind.simulated, found.reviews, kind.max_tokens)


def plan(kind: ServerKind, found: Recorded, millions: int) -> Plan:
    """Workers and servers, and the wait."""
    peak = PEAK * millions * 1e6 / 86_400
    servers = math.ceil(peak / (BUSY * rate_of(kind, found)))
    workers = math.ceil(peak * found.cpu_ms[kind.name] / 1000 / BUSY)
    waits = sorted(wait for seed in SEEDS for wait in _waits(kind, found.reviews, peak, workers, servers, seed))
    return Plan(millions, peak, workers + SPARE, servers + SPARE, *(_quantile(waits, q) for q in (0.5, 0.99)))


def _waits(
    kind: ServerKind, reviews: Sequence[Levels], peak: float, workers: int, servers: int, seed: int
) -> tuple[float, ...]:
    """Of one worker with its part of the servers; where that is less than one, of one server with all its workers."""
    part = max(1, round(servers / workers))
    moments = arrivals(EVENTS, peak * part / servers, steady, seed)
    rng = random.Random(f"{seed} reviews")
    events = trace(moments, [rng.choice(reviews) for _ in moments])
    policy = LeastTimePolicy(kind.cost, kind.calls, part, kind.max_tokens)
    return Simulation(Servers(profile=kind.simulated, count=part), events, policy, seed).run().latencies


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
