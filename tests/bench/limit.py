"""How near the worker comes to what its model server can do: its events a second / those of a bare client.

    python tests/bench/limit.py [--quick] [--reviews FILE] [--json FILE]

The bare client sends the windows that the same events have on both levels to the same server, in packing that nobody
can have who must wait for answers: all of them sorted by length, in full calls, two in flight. It has no Kafka, no
results, and knows level 1 before level 0 was answered. The worker (`rexstream run`) drains the same events as a backlog
from the embedded broker, from the first record's timestamp to the last result's. The model server with the demo model
has a CPU for itself, so the model is the bottleneck; both run with what `rexstream tune` would choose for it. In turn,
in pairs; 1 would be a worker that costs the server nothing beside the model.

Beside it: how busy the server is kept, and what more the worker's calls cost it (padding, smaller calls).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.live.stage import ROOT, Stage, Unmeasurable
from bench.live.windows import batching, read_texts, recorded, session_on, timed
from bench.report.section import Goal, Section
from bench.simulator.trace import SAMPLES

from consumer.batching.call_cost import fit_call_cost
from consumer.batching.queue import padded_length
from consumer.batching.tuning import token_budget
from consumer.local.demo import MAX_TOKENS
from consumer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.live.stage import Process, Worker

    from consumer.batching.policy import CallCost
    from consumer.cli.model_source import Session
    from consumer.extraction.window import Window

TITLE: Final = "The worker against the limit of its model server"
TASK: Final = "product_features"
IN_FLIGHT: Final = 2
OBJECTIVE: Final = 1.0
GOAL: Final = 0.95
TIMEOUT: Final = 60.0


class Run(NamedTuple):
    """All events through the server once: what it took, and what was sent."""

    seconds: float
    server_cpu: float
    """Seconds of the server's processor."""
    calls: int
    padded: int
    """Tokens, padding included."""


@dataclass(frozen=True)
class Pair:
    """Both, one after the other."""

    worker: Run
    bare: Run

    @property
    def of_limit(self) -> float:
        """Events a second of the worker / the bare client."""
        return self.bare.seconds / self.worker.seconds

    @property
    def busy(self) -> float:
        """How busy the worker keeps the server / how busy the bare client does."""
        return (self.worker.server_cpu / self.worker.seconds) / (self.bare.server_cpu / self.bare.seconds)

    @property
    def work(self) -> float:
        """What the server computes for the bare client's calls / for the worker's."""
        return self.bare.server_cpu / self.worker.server_cpu


def packed(windows: Sequence[Window], max_tokens: int) -> list[list[Window]]:
    """Full calls, in order of length."""
    calls: list[list[Window]] = [[]]
    for window in sorted(windows, key=lambda window: window.length):
        if calls[-1] and (len(calls[-1]) + 1) * padded_length(window.length) > max_tokens:
            calls.append([])
        calls[-1].append(window)
    return calls


def bare_run(session: Session, server: Process, calls: Sequence[Sequence[Window]]) -> Run:
    """The calls, two in flight."""
    waiting = iter(calls)

    async def one_after_the_other() -> None:
        for call in waiting:
            await session.client.predict(call, padded_length(call[-1].length), TIMEOUT)

    async def every() -> None:
        await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))

    cpu, began = server.cpu_seconds(), time.monotonic()
    session.runner.run(every())
    seconds = time.monotonic() - began
    padded = sum(len(call) * padded_length(call[-1].length) for call in calls)
    return Run(seconds, server.cpu_seconds() - cpu, len(calls), padded)


def worker_run(worker: Worker, server: Process, texts: Sequence[str]) -> Run:
    """The events as a backlog."""
    before, cpu = worker.metrics(), server.cpu_seconds()
    passed = worker.run(texts)
    after = worker.metrics()
    calls, padded = (
        int(after[name] - before.get(name, 0.0))
        for name in ("rexstream_batch_tokens_count", "rexstream_batch_tokens_sum")
    )
    seconds = max(each.done for each in passed) - min(each.arrived for each in passed)
    return Run(seconds, server.cpu_seconds() - cpu, calls, padded)


def measured(
    stage: Stage, texts: Sequence[str], pairs: int, seconds: float, grid: float
) -> tuple[list[Pair], int, int]:
    """So many pairs of runs of about ``seconds``; the events of each, and the tokens of a full call."""
    with session_on(stage.target, stage.bundle) as session:
        levels = recorded(session, TASK, texts)
        each = [[window for level in one for window in level] for one in levels]
        every = [window for one in each for window in one]
        counts = Counter(padded_length(window.length) for window in every)
        cost: CallCost = fit_call_cost(timed(session, every, MAX_TOKENS, grid))
        max_tokens = token_budget(cost, counts, OBJECTIVE, MAX_TOKENS).max_tokens
        once = sum(cost.seconds(len(call), padded_length(call[-1].length)) for call in packed(every, max_tokens))
        events = max(1, round(seconds / once)) * len(texts)
        calls = packed(every * (events // len(texts)), max_tokens)
        worker = stage.worker("limit", TASK, batching(cost, max_tokens, IN_FLIGHT))
        worker.run(texts[:16])
        found = []
        for number in range(pairs):
            runs: dict[str, Run] = {}
            for who in ("worker", "bare") if number % 2 == 0 else ("bare", "worker"):
                if who == "worker":
                    runs[who] = worker_run(worker, stage.server, [texts[n % len(texts)] for n in range(events)])
                else:
                    runs[who] = bare_run(session, stage.server, calls)
                run = runs[who]
                print(
                    f"{who:<7}{events / run.seconds:8.1f} events/s{run.calls:7} calls{run.padded:9} padded tokens   "
                    f"server busy {run.server_cpu / run.seconds:.0%}",
                    flush=True,
                )
            found.append(Pair(runs["worker"], runs["bare"]))
        return found, events, max_tokens


def in_words(ratios: Sequence[float]) -> str:
    """The median with the range."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def section(pairs: Sequence[Pair], events: int, max_tokens: int) -> Section:
    """For the report."""
    ratios = [pair.of_limit for pair in pairs]
    rows: list[list[str | int | float | None]] = [
        ["events/s", in_words(ratios)],
        ["of it: how busy the server is kept", in_words([pair.busy for pair in pairs])],
        ["of it: what the server computes for an event, bare client / worker", in_words([pair.work for pair in pairs])],
        ["calls", in_words([pair.worker.calls / pair.bare.calls for pair in pairs])],
        ["padded tokens", in_words([pair.worker.padded / pair.bare.padded for pair in pairs])],
    ]
    return Section(
        title=TITLE,
        claim="When the model is the bottleneck, a worker drains a backlog nearly as fast as a bare client that sends "
        "the same windows, knows all of them beforehand and packs them by length.",
        columns=["worker / bare client", f"median of {len(pairs)} pairs, range"],
        rows=rows,
        goals=[Goal(f"events/s, worker / limit >= {GOAL}", in_words(ratios), statistics.median(ratios) >= GOAL)],
        notes=[
            f"{events} events a run, {TASK}, both levels; calls of at most {max_tokens} padded tokens, two in flight.",
            "The model server with the demo model on a CPU of its own; broker, worker and bare client on the rest.",
        ],
    )


@click.command()
@click.option("--quick", is_flag=True, help="Two short pairs.")
@click.option("--pairs", default=5, show_default=True, help="Runs of each of the two, in turn.")
@click.option("--seconds", default=40.0, show_default=True, help="About the length of a run.")
@click.option("--reviews", type=click.Path(exists=True, path_type=Path), default=SAMPLES, help="JSON lines with text.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(quick: bool, pairs: int, seconds: float, reviews: Path, path: Path | None) -> None:
    """Measure, print, write."""
    configure_logging("error", "bench")
    if quick:
        pairs, seconds = 2, 5.0
    texts = read_texts(reviews, 60 if quick else 400)
    try:
        with Stage(ROOT / "build/bench/live") as stage:
            found = measured(stage, texts, pairs, seconds, 5.0 if quick else 20.0)
    except Unmeasurable as why:
        print(f"not measured: {why}")
        result = Section(TITLE, not_measured=str(why))
    else:
        result = section(*found)
        for row in result.rows:
            print(f"{row[0]:<70}{row[1]}")
    if path is not None:
        result.write(path)


if __name__ == "__main__":
    main()
