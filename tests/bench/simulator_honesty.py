"""Whether the simulator tells the truth: the same arrivals through a live worker and through the simulated one.

    python tests/bench/simulator_honesty.py [--quick] [--loads 0.5,0.8,0.95] [--reviews FILE] [--json FILE]

The whole worker (`rexstream run`) takes events from the embedded broker, open loop, in front of the local model server
with the demo model, which has a CPU for itself; it is the worker that an owner has, not only its policy. Before and
after each run, calls are measured one after the other (rows and length); before it also events one by one on the idle
worker, which gives the time that is not the model's: for each event and for each call. From these figures and the
moments at which the records of the run arrived, the simulator predicts the run: its server replays the measured calls,
side by side (processor sharing), as TensorFlow does. What it replays is the processor's time of the server in them: the
rest of a round trip (writing, network, reading) goes on beside the computation of other calls. It never sees the run's
own calls or latencies. Predicted p50 and throughput should be within 10 % of the observed ones, p99 within 25 %.

Waits grow with one over the capacity that is left: at 95 % of it, calls that are 1 % slower make waits nearly a quarter
longer. So a run counts only where calls took as long after it as before, but for a tenth of what is left (``DRIFT``):
otherwise the machine was another one. It is made again, twice at most; the run with the least drift is reported.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.live.stage import ROOT, Stage, Unmeasurable
from bench.live.windows import batching, metered, read_texts, recorded, session_on, timed
from bench.report.section import Goal, Plot, Section, Series
from bench.simulator.rivals import LeastTimePolicy
from bench.simulator.server import Profile
from bench.simulator.server import measured as profile
from bench.simulator.simulate import Client, Servers, Simulation
from bench.simulator.trace import SAMPLES, Event, arrivals, capacity, steady

from consumer.batching.call_cost import Cell, fit_call_cost
from consumer.batching.queue import padded_length
from consumer.batching.tuning import token_budget
from consumer.local.demo import MAX_TOKENS
from consumer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.live.stage import Passed, Worker

    from consumer.batching.policy import CallCost

TITLE: Final = "The simulator against a live model server"
BESIDE: Final = ("p50 (s)", "p99 (s)", "calls, after / before - 1")
TASK: Final = "product_features"
IN_FLIGHT: Final = 2
OBJECTIVE: Final = 1.0
SEEDS: Final = 9
"""Of the simulator's noise; the figures are medians over them."""
LONE: Final = 40
"""Events one by one, before each run."""
PASSES: Final = 2
"""Of these; the one with less beside the server's computation counts, as what disturbs the machine only adds to it."""
LONE_FACTOR: Final = 2.0
"""Of what their calls take, until the next."""
GRID_SECONDS: Final = {False: 25.0, True: 5.0}
"""Of single calls before each run, by whether it is to be quick."""
QUICK_SECONDS: Final = 15.0
DRIFT: Final = 0.1
"""Of the capacity that is left: how much longer or shorter calls may take after a run that counts."""
TRIES: Final = 3
LIMITS: Final = {"p50": 0.10, "p99": 0.25, "throughput": 0.10}


Lengths = list[tuple[tuple[int, ...], ...]]
"""Of the windows of each text, level by level."""


class Figures(NamedTuple):
    """Of one run: latencies in seconds, throughput in events a second."""

    p50: float
    p99: float
    throughput: float


class Run(NamedTuple):
    """One load: what was observed and what was predicted, with the latencies of each event, in order of size."""

    load: float
    events: int
    observed: Figures
    predicted: Figures
    latencies: list[float]
    predicted_latencies: list[float]
    drift: float
    """What calls took after the run / before it, - 1: the geometric mean of all shapes."""

    @property
    def steady(self) -> bool:
        """Whether the machine was the same before and after."""
        return abs(self.drift) <= DRIFT * (1 - self.load)

    def off(self, name: str) -> float:
        """Predicted / observed - 1."""
        return float(getattr(self.predicted, name) / getattr(self.observed, name)) - 1


class Idle(NamedTuple):
    """What an event takes on the idle worker beside the server's computation, in seconds."""

    handling: float
    """Of each event: from its record's timestamp to its first window, and from its last answer to its result."""
    delay: float
    """Of each call, each way."""
    row: float = 0.0
    """Of each row of a call."""


class Replay(NamedTuple):
    """The worker and its server, simulated."""

    server: Profile
    cost: CallCost
    """As the worker's policy knows it."""
    max_tokens: int
    idle: Idle = Idle(0.0, 0.0)

    def latencies(self, events: Sequence[Event], seed: int) -> tuple[list[float], float]:
        """Of each event, in order of size; and seconds from the first arrival to the last result."""
        client = Client(
            delay=self.idle.delay,
            call_seconds=0.0,  # in the delay
            row_seconds=self.idle.row,
            max_tokens=self.max_tokens,
            event_tokens=self.max_tokens * (IN_FLIGHT + 1),
            cost=self.cost,
        )
        policy = LeastTimePolicy(self.cost, IN_FLIGHT, max_tokens=self.max_tokens)
        outcome = Simulation(Servers(profile=self.server), events, policy, seed, client).run()
        return sorted(each + self.idle.handling for each in outcome.latencies), outcome.seconds + self.idle.handling


def _figures(ordered: Sequence[float], seconds: float) -> Figures:
    def percentile(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Figures(percentile(0.5), percentile(0.99), len(ordered) / seconds)


def _events(passed: Sequence[Passed], levels: Sequence[tuple[tuple[int, ...], ...]]) -> list[Event]:
    first = min(each.arrived for each in passed)
    events = [Event(each.arrived - first, levels[each.number % len(levels)]) for each in passed]
    return sorted(events, key=lambda event: event.at)


def idle(worker: Worker, replay: Replay, texts: Sequence[str], lengths: Lengths) -> Idle:
    """Send events one by one, each when the one before should be done, and compare with their calls alone."""
    computed = [replay.latencies([Event(0.0, each)], seed)[0][0] for seed, each in enumerate(lengths[:LONE])]
    moments = list(accumulate((LONE_FACTOR * each for each in computed[:-1]), initial=0.0))
    levels = statistics.fmean(map(len, lengths[:LONE]))
    around, beside = [], []
    for _ in range(PASSES):
        passed = worker.run(texts[:LONE], moments)
        around.append(statistics.median(each.dispatched - alone for each, alone in zip(passed, computed, strict=True)))
        beside.append(statistics.median(each.done - each.arrived - each.dispatched for each in passed))
    return Idle(max(0.0, min(beside)), max(0.0, min(around)) / levels / 2, replay.idle.row)


def measured(
    stage: Stage, texts: Sequence[str], loads: Sequence[float], seconds: float, grid: float, tries: int
) -> list[Run]:
    """A run of ``seconds`` for each load, between single calls for ``grid`` seconds each."""
    with session_on(stage.target, stage.bundle) as session:
        print(f"recording the windows of {len(texts)} reviews", flush=True)
        levels = recorded(session, TASK, texts)
        windows = [window for one in levels for level in one for window in level]
        lengths: Lengths = [tuple(tuple(window.length for window in level) for level in one) for one in levels]
        counts = Counter(padded_length(window.length) for window in windows)
        cost = fit_call_cost(timed(session, windows, MAX_TOKENS, grid))
        max_tokens = token_budget(cost, counts, OBJECTIVE, MAX_TOKENS).max_tokens
        worker = stage.worker("honesty", TASK, batching(cost, max_tokens, IN_FLIGHT))
        runs: list[Run] = []
        before = metered(session, windows, max_tokens, grid, stage.server.cpu_seconds)
        for number, load in enumerate(loads):
            made: list[Run] = []
            for _ in range(tries):
                server = profile(before.work, sharing=True)
                rate = load * capacity(server, lengths, max_tokens)
                count = max(50, round(rate * seconds))
                replay = Replay(server, cost, max_tokens, Idle(0.0, 0.0, before.row_seconds))
                replay = replay._replace(idle=idle(worker, replay, texts, lengths))
                moments = arrivals(count, rate, steady, seed=number)
                passed = worker.run([texts[each % len(texts)] for each in range(count)], moments)
                after = metered(session, windows, max_tokens, grid, stage.server.cpu_seconds)
                replay = replay._replace(server=profile(pooled(before.work, after.work), sharing=True))
                found = compared(load, replay, passed, lengths, drift(before.cells, after.cells))
                before = after
                _show(found, rate, replay)
                made.append(found)
                if found.steady:
                    break
            runs.append(min(made, key=lambda run: abs(run.drift)))
        return runs


def pooled(before: Sequence[Cell], after: Sequence[Cell]) -> tuple[Cell, ...]:
    """The shapes that were measured both times, with all their repeats."""
    again = {(cell.rows, cell.length): cell.repeats for cell in after}
    both = [cell for cell in before if (cell.rows, cell.length) in again]
    return tuple(Cell(cell.rows, cell.length, cell.repeats + again[cell.rows, cell.length]) for cell in both)


def drift(before: Sequence[Cell], after: Sequence[Cell]) -> float:
    """As ``Run.drift``."""
    took = {(cell.rows, cell.length): cell.seconds for cell in before}
    ratios = [cell.seconds / took[cell.rows, cell.length] for cell in after if (cell.rows, cell.length) in took]
    return statistics.geometric_mean(ratios) - 1


def compared(load: float, replay: Replay, passed: Sequence[Passed], lengths: Lengths, drift: float) -> Run:
    """The run as it was, and as the simulator has it."""
    tries = [replay.latencies(_events(passed, lengths), seed) for seed in range(SEEDS)]
    found = [_figures(*each) for each in tries]
    medians = Figures(*(statistics.median(column) for column in zip(*found, strict=True)))
    typical = min(zip(found, tries, strict=True), key=lambda one: abs(one[0].p50 - medians.p50))[1][0]
    observed = sorted(each.done - each.arrived for each in passed)
    took = max(each.done for each in passed) - min(each.arrived for each in passed)
    return Run(load, len(passed), _figures(observed, took), medians, observed, typical, drift)


def _show(run: Run, rate: float, replay: Replay) -> None:
    print(
        f"{run.load:.0%} of capacity: {run.events} events, {rate:.1f} a second; calls of up to {replay.max_tokens} "
        f"tokens; not the model's are {replay.idle.handling * 1000:.1f} ms of an event and "
        f"{replay.idle.delay * 2000:.1f} ms of a call and {replay.idle.row * 1000:.3f} ms of a row; after the run "
        f"calls took {run.drift:+.1%}",
        flush=True,
    )
    for name in LIMITS:
        print(
            f"  {name:<11} observed {getattr(run.observed, name):8.3f}   predicted {getattr(run.predicted, name):8.3f}"
            f"   {run.off(name):+.0%} (limit {LIMITS[name]:.0%})",
            flush=True,
        )


def section(runs: Sequence[Run], reviews: int) -> Section:
    """For the report."""
    rows: list[list[str | int | float | None]] = []
    goals = []
    for run in runs:
        load = f"{run.load:.0%} of capacity"
        off = [f"{run.off(name):+.1%}" for name in LIMITS]
        rows.append([load, run.events, *off, run.observed.p50, run.observed.p99, f"{run.drift:+.1%}"])
    counted = [run for run in runs if run.steady]
    left_out = "".join(f"; {run.load:.0%} does not count" for run in runs if not run.steady)
    for name, limit in LIMITS.items():
        worst = max((run.off(name) for run in counted or runs), key=abs)
        within = f"{name}: predicted within {limit:.0%} of observed"
        goals.append(Goal(within, f"worst {worst:+.1%}{left_out}", abs(worst) <= limit if counted else None))
    plots = [
        Plot(
            kind="lines",
            title=f"Latency of events at {run.load:.0%} of capacity",
            xlabel="share of the events (%)",
            ylabel="latency (s)",
            x=[float(share) for share in range(1, 100)],
            series=[
                Series(name, [ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] for share in range(1, 100)])
                for name, ordered in (("observed", run.latencies), ("predicted", run.predicted_latencies))
            ],
        )
        for run in runs
    ]
    return Section(
        title=TITLE,
        claim="The simulator predicts what a live worker in front of a live model server does, from single calls that "
        "were measured before and after and the moments at which records arrived.",
        columns=["load", "events", *(f"{name}, predicted / observed - 1" for name in LIMITS), *BESIDE],
        rows=rows,
        goals=goals,
        notes=[
            f"Whole worker, embedded broker, demo model on a CPU of its own, texts of {reviews} reviews, {TASK}.",
            f"Predictions are medians over {SEEDS} seeds of the simulated noise.",
            f"A run does not count where calls' time changed by over {DRIFT:.0%} of the capacity that is left.",
            "What is not the server's: the time of an event and a call from events one by one, of a row from calls.",
        ],
        plots=plots,
    )


@click.command()
@click.option("--quick", is_flag=True, help="One load, a short run.")
@click.option("--loads", default="0.5,0.8,0.95", show_default=True, help="Shares of the server's capacity.")
@click.option("--seconds", default=90.0, show_default=True, help="Length of each run.")
@click.option("--reviews", type=click.Path(exists=True, path_type=Path), default=SAMPLES, help="JSON lines with text.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(quick: bool, loads: str, seconds: float, reviews: Path, path: Path | None) -> None:
    """Measure, print, write."""
    configure_logging("error", "bench")
    texts = read_texts(reviews, 60 if quick else 400)
    shares = [0.8] if quick else [float(load) for load in loads.split(",")]
    try:
        with Stage(ROOT / "build/bench/live") as stage:
            length = QUICK_SECONDS if quick else seconds
            runs = measured(stage, texts, shares, length, GRID_SECONDS[quick], 1 if quick else TRIES)
            found = section(runs, len(texts))
    except Unmeasurable as why:
        print(f"not measured: {why}")
        found = Section(TITLE, not_measured=str(why))
    if path is not None:
        found.write(path)


if __name__ == "__main__":
    main()
