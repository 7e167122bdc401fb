"""What live events feel of a shadow run on the same model server: latencies with it / without it.

    python tests/bench/shadow_beside_live.py [--quick] [--share 0.1] [--loads 0.5,0.7] [--pairs 5] [--json FILE]

A live worker (`rexstream run`) takes events from the embedded broker, open loop, in front of the local model server
with the demo model, which has a CPU for itself. In turn, in pairs, with the same events at the same moments: alone, and
beside a shadow run of what the topic held before. The shadow is a worker with the settings and parts of `rexstream
shadow run`, which itself refuses the embedded broker: its calls and pauses are the same. The load is a share of the
events a second with which the live worker alone drains a backlog. p99 with / without should be 1.10 at most.

Broker, both workers and whoever measures share the other CPUs, so what the shadow costs there counts as well.

Before that the same is simulated: both workers' policies in front of a server that computes what is in flight side by
side. That shows the model server's part without the machine's, for an accelerator, too, and without sparing (1).
"""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.live.stage import ROOT, Stage, Unmeasurable
from bench.live.windows import batching, read_texts, recorded, session_on, timed
from bench.report.section import Goal, Section, Table
from bench.simulator.beside import beside
from bench.simulator.trace import SAMPLES, arrivals, steady

from consumer.batching.call_cost import fit_call_cost
from consumer.batching.policy import ASSUMED
from consumer.config.tree import CallCostConfig
from consumer.local.demo import COST, MAX_TOKENS
from consumer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.live.stage import Passed, Worker

TITLE: Final = "A shadow run beside a live worker"
CLAIM: Final = """\
While a shadow run extracts old records again on the model server of a live worker, the p99 of live events grows by a
tenth at most: the shadow has one small call at a time and pauses that grow while others use the server."""
NAME: Final = "beside"
BESIDE: Final = ("p50 alone (s)", "p99 alone (s)", "shadow, records/s")
TASK: Final = "product_features"
IN_FLIGHT: Final = 2
GOAL: Final = 1.10
BACKLOG_SECONDS: Final = 10.0
SERVERS: Final = (
    ("the demo model on a CPU", CallCostConfig(**COST).of_calls(), MAX_TOKENS, 240.0),
    ("an accelerator (assumed)", ASSUMED, 16_384, 40.0),
)
"""Simulated: name, cost of calls, tokens of a full one, seconds of a run."""


class Pair(NamedTuple):
    """The latencies of live events in order of size, in seconds, without and with a shadow run, and its records/s."""

    alone: list[float]
    beside: list[float]
    shadow_rate: float

    def ratio(self, share: float) -> float:
        """The percentile with / without."""
        return percentile(self.beside, share) / percentile(self.alone, share)


def percentile(ordered: Sequence[float], share: float) -> float:
    """``share`` of them are no longer."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def simulated(loads: Sequence[float], share: float, seeds: int) -> tuple[Table, list[Goal]]:
    """Medians of runs that differ in their arrivals."""
    rows: list[list[str | int | float | None]] = []
    goals = []
    for name, cost, max_tokens, seconds in SERVERS:
        for load in loads:
            alone = [beside(load, None, seed, seconds, cost, max_tokens).latencies for seed in range(seeds)]
            for its in (share, 1.0):
                runs = [beside(load, its, seed, seconds, cost, max_tokens) for seed in range(seeds)]
                ratios = [
                    [
                        percentile(run.latencies, each) / percentile(one, each)
                        for run, one in zip(runs, alone, strict=True)
                    ]
                    for each in (0.5, 0.99)
                ]
                if its == share:
                    goals.append(_goal(f"{load:.0%} of capacity, simulated, {name}", ratios[1]))
                rate = statistics.median(run.shadow_rate for run in runs)
                rows.append([name, f"{load:.0%}", its, *map(in_words, ratios), round(rate, 2)])
                print(*rows[-1], sep="   ", flush=True)
    columns = ["server", "load", "share", "p50, with / without", "p99, with / without", "shadow, records/s"]
    return Table("Simulated", columns, rows), goals


def _goal(where: str, ratios: Sequence[float]) -> Goal:
    return Goal(f"p99 with / without <= {GOAL:.2f} at {where}", in_words(ratios), statistics.median(ratios) <= GOAL)


def measured(
    stage: Stage, texts: Sequence[str], loads: Sequence[float], pairs: int, seconds: float, share: float
) -> tuple[dict[float, list[Pair]], float]:
    """So many pairs for each load, each of two runs of about ``seconds``; and the events a second of a backlog."""
    with session_on(stage.target, stage.bundle) as session:
        windows = [window for one in recorded(session, TASK, texts) for level in one for window in level]
        cost = fit_call_cost(timed(session, windows, MAX_TOKENS, 5.0))
    worker = stage.worker(NAME, TASK, batching(cost, MAX_TOKENS, IN_FLIGHT))
    first = worker.run(_some(texts, 60))
    events = round(BACKLOG_SECONDS * 60 / _span(first))
    capacity = events / _span(worker.run(_some(texts, events)))
    print(f"a backlog: {capacity:.1f} events/s", flush=True)
    found: dict[float, list[Pair]] = {}
    for load in loads:
        rate, found[load] = load * capacity, []
        for number in range(pairs):
            count = max(50, round(rate * seconds))
            moments = arrivals(count, rate, steady, seed=number)
            pair = _pair(stage, worker, _some(texts, count), moments, share, shadow_first=number % 2 == 1)
            found[load].append(pair)
            print(
                f"{load:.0%}: p50 {percentile(pair.alone, 0.5):.3f} s, with a shadow x{pair.ratio(0.5):.2f}; "
                f"p99 {percentile(pair.alone, 0.99):.3f} s, x{pair.ratio(0.99):.2f}; "
                f"shadow {pair.shadow_rate:.2f} records/s",
                flush=True,
            )
    return found, capacity


def _pair(
    stage: Stage, worker: Worker, texts: Sequence[str], moments: Sequence[float], share: float, *, shadow_first: bool
) -> Pair:
    latencies: dict[bool, list[float]] = {}
    shadow_rate = 0.0
    for with_shadow in (shadow_first, not shadow_first):
        if with_shadow:
            shadow = stage.shadow(NAME, share)
            before = shadow.results()
            passed = worker.run(texts, moments)
            shadow_rate = (shadow.results() - before) / _span(passed)
            shadow.stop()
        else:
            passed = worker.run(texts, moments)
        latencies[with_shadow] = sorted(each.done - each.arrived for each in passed)
    return Pair(latencies[False], latencies[True], shadow_rate)


def _some(texts: Sequence[str], count: int) -> list[str]:
    return [texts[number % len(texts)] for number in range(count)]


def _span(passed: Sequence[Passed]) -> float:
    return max(each.done for each in passed) - min(each.arrived for each in passed)


def in_words(ratios: Sequence[float]) -> str:
    """The median with the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def section(
    found: dict[float, list[Pair]], capacity: float, share: float, model: Table, model_goals: Sequence[Goal]
) -> Section:
    """For the report."""
    rows: list[list[str | int | float | None]] = []
    goals = []
    for load, pairs in found.items():
        p50, p99 = ([pair.ratio(each) for pair in pairs] for each in (0.5, 0.99))
        alone = [statistics.median(percentile(pair.alone, each) for pair in pairs) for each in (0.5, 0.99)]
        shadow = statistics.median(pair.shadow_rate for pair in pairs)
        rows.append([f"{load:.0%}", len(pairs[0].alone), in_words(p50), in_words(p99), *alone, shadow])
        goals.append(_goal(f"{load:.0%} of capacity", p99))
    pairs_each = len(next(iter(found.values())))
    return Section(
        TITLE,
        CLAIM,
        columns=[
            "load",
            "events",
            "p50, with / without",
            "p99, with / without",
            "p50 (s)",
            "p99 (s)",
            "shadow, records/s",
        ],
        rows=rows,
        goals=[*goals, *model_goals],
        tables=[model],
        notes=[
            f"{pairs_each} pairs for each load, median, range; --share {share:g}; a backlog: {capacity:.1f} events/s.",
            "The model server with the demo model on a CPU of its own; broker, both workers, the producer on the rest.",
            "The shadow is a worker with the settings and parts of rexstream shadow run, which refuses this broker.",
        ],
    )


@click.command()
@click.option("--quick", is_flag=True, help="One short pair for each load.")
@click.option("--pairs", default=5, show_default=True, help="Runs of each of the two, in turn, for each load.")
@click.option("--seconds", default=60.0, show_default=True, help="About the length of a run.")
@click.option("--loads", default="0.5,0.7", show_default=True, help="Shares of the capacity.")
@click.option("--share", default=0.1, show_default=True, help="As of rexstream shadow run.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(quick: bool, pairs: int, seconds: float, loads: str, share: float, path: Path | None) -> None:
    """Measure, print, write."""
    configure_logging("error", "bench")
    if quick:
        pairs, seconds = 1, 8.0
    shares = [float(load) for load in loads.split(",")]
    model = simulated(shares, share, 2 if quick else 10)
    try:
        with Stage(ROOT / "build/bench/live") as stage:
            found = measured(stage, read_texts(SAMPLES, 400), shares, pairs, seconds, share)
    except Unmeasurable as why:
        print(f"not measured: {why}")
        result = Section(TITLE, not_measured=str(why))
    else:
        result = section(*found, share, *model)
        for goal in result.goals:
            print(f"{'reached' if goal.met else 'MISSED'}: {goal.goal}: {goal.found}")
    if path is not None:
        result.write(path)


if __name__ == "__main__":
    main()
