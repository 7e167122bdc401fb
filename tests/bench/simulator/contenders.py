"""Who takes part: each policy with the settings among which it is tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.simulator.rivals import FixedSize, LeastTimePolicy, LengthBuckets, LengthCut, SortedWindow, TokenBudget
from bench.simulator.rivals_adaptive import BentoML, Clipper, RazorsEdge, Symphony, measured_cost, measured_times
from bench.simulator.simulate import Simulation

from consumer.batching.policy import ASSUMED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.simulator.outcome import Outcome
    from bench.simulator.simulate import Policy, Servers
    from bench.simulator.trace import Event

Values = dict[str, Any]
"""Of one setting, by name. ``calls`` are those in flight for each server."""

COARSE: Final = (32, 64, 128, 256)
FINE: Final = (24, 40, 56, 72, 96, 128, 192, 256, 320, 384, 448)
BUCKETS: Final = {"coarse": COARSE, "fine": FINE}
"""Ends of the ranges of length buckets, in tokens."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and its settings, some of them for the quick run."""

    name: str
    make: Callable[[Values, Servers, int], Policy]
    """From a setting, the servers (for those that measure before they start) and the seed of that measurement."""
    quick: tuple[Values, ...]
    more: tuple[Values, ...] = ()
    """Tried as well in the full run."""

    def settings(self, *, full: bool) -> tuple[Values, ...]:
        """What tuning chooses from."""
        return self.quick + self.more if full else self.quick


def in_words(values: Values) -> str:
    """A setting as it is printed."""
    return " ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )


def grid(**choices: Sequence[Any]) -> tuple[Values, ...]:
    """All combinations."""
    found: list[Values] = [{}]
    for name, values in choices.items():
        found = [{**one, name: value} for one in found for value in values]
    return tuple(found)


def _shipped(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    """The defaults of ``batching``; calls are in all, however many servers there are."""
    return LengthCut(values["tokens"], values["calls"])


def _length_cut(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return LengthCut(values["tokens"], values["calls"] * servers.count)


def _fixed(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return FixedSize(values["rows"], values.get("wait", 0.0), values["calls"] * servers.count)


def _budget(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return TokenBudget(values["tokens"], values["calls"] * servers.count)


def _buckets(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    boundaries = BUCKETS[values["buckets"]]
    return LengthBuckets(boundaries, values["tokens"], values["wait"], values["calls"] * servers.count)


def _sorted(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return SortedWindow(values["tokens"], values["look"], values["calls"] * servers.count)


def _bentoml(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return BentoML(values["rows"], values["objective"], values["calls"] * servers.count)


def _clipper(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return Clipper(values["objective"], values["calls"] * servers.count)


def _symphony(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return Symphony(values["rows"], values["objective"], values["calls"] * servers.count)


def _razors_edge(values: Values, servers: Servers, seed: int) -> Policy:
    return RazorsEdge(measured_times(servers.profile, seed), values["choice"], values["calls"] * servers.count)


def _measured(values: Values, servers: Servers, seed: int) -> Policy:
    return LeastTimePolicy(measured_cost(servers.profile, seed), values["calls"], servers.count)


def _assumed(values: Values, servers: Servers, seed: int) -> Policy:  # noqa: ARG001
    return LeastTimePolicy(ASSUMED, values["calls"], servers.count)


OURS: Final = "LeastTime"
UNMEASURED: Final = "LeastTime, no profile"
SHIPPED: Final = "LengthCut as shipped"
TUNED: Final = "LengthCut tuned"
CONTENDERS: Final = (
    Contender(OURS, _measured, grid(calls=[2])),
    Contender(UNMEASURED, _assumed, grid(calls=[2])),
    Contender(SHIPPED, _shipped, grid(tokens=[16_384], calls=[2])),
    Contender(
        TUNED,
        _length_cut,
        grid(tokens=[2_048, 4_096, 8_192, 16_384], calls=[2]) + grid(tokens=[4_096, 16_384], calls=[1]),
        grid(tokens=[1_024], calls=[1, 2])
        + grid(tokens=[2_048, 8_192], calls=[1])
        + grid(tokens=[1_024, 4_096], calls=[3]),
    ),
    Contender(
        "fixed size and time",
        _fixed,
        grid(rows=[8, 32, 128], wait=[0.02], calls=[2]),
        grid(rows=[4, 16, 64], wait=[0.01, 0.05], calls=[1, 2]),
    ),
    Contender("greedy", _fixed, grid(rows=[8, 32, 128], calls=[2]), grid(rows=[4, 8, 16, 64, 128], calls=[1, 3])),
    Contender(
        "token budget",
        _budget,
        grid(tokens=[1_024, 4_096, 16_384], calls=[2]),
        grid(tokens=[512, 2_048, 8_192], calls=[1, 2, 3]),
    ),
    Contender(
        "length buckets",
        _buckets,
        grid(buckets=["coarse", "fine"], tokens=[2_048, 4_096, 16_384], wait=[0.02], calls=[2]),
        grid(buckets=["coarse", "fine"], tokens=[2_048, 8_192], wait=[0.0, 0.05], calls=[1, 2]),
    ),
    Contender(
        "sorted window",
        _sorted,
        grid(tokens=[2_048, 4_096, 16_384], look=[512], calls=[1, 2]),
        grid(tokens=[1_024, 8_192], look=[128, 1_024], calls=[1, 2]),
    ),
    Contender(
        "BentoML",
        _bentoml,
        grid(rows=[8, 32, 128], objective=[0.5], calls=[2]),
        grid(rows=[4, 16, 64], objective=[0.1, 1.0], calls=[1, 2]),
    ),
    Contender(
        "Clipper", _clipper, grid(objective=[0.03, 0.1, 0.5], calls=[2]), grid(objective=[0.05, 0.2, 1.0], calls=[1, 2])
    ),
    Contender(
        "Symphony",
        _symphony,
        grid(rows=[8, 128], objective=[0.1, 0.5], calls=[1]),
        grid(rows=[8, 32, 128], objective=[0.05, 0.2, 1.0], calls=[1, 2]),
    ),
    Contender(
        "Razor's Edge",
        _razors_edge,
        grid(choice=["fifo", "minmax"], calls=[1, 2]),
        grid(choice=["guarded"], calls=[1, 2]) + grid(choice=["fifo", "minmax"], calls=[3]),
    ),
)


def run_once(contender: Contender, values: Values, servers: Servers, events: Sequence[Event], seed: int) -> Outcome:
    """One run. Raises PolicyError."""
    return Simulation(servers, events, contender.make(values, servers, seed), seed).run()


def cost(outcome: Outcome, *, drain: bool) -> float:
    """What counts, smaller is better: seconds an event when a backlog drains, else p99 of the latency in seconds."""
    return 1 / outcome.throughput if drain else outcome.percentile(0.99)


def training_costs(
    contender: Contender, servers: Servers, events: Sequence[Event], seed: int, *, drain: bool, full: bool
) -> list[float]:
    """What each setting costs on a training trace."""
    settings = contender.settings(full=full)
    if len(settings) == 1:
        return [1.0]
    return [cost(run_once(contender, values, servers, events, seed), drain=drain) for values in settings]


def cheapest(costs: Sequence[Sequence[float]]) -> int:
    """The setting of least cost over some traces, as a number: by the geometric mean, so that each trace counts alike.

    ``costs`` has a row for each trace and a column for each setting. Of equal ones it is the first.
    """
    sums = [sum(math.log(each) for each in column) for column in zip(*costs, strict=True)]
    return sums.index(min(sums))
