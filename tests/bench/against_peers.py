"""The worker against what else an engineer would take: a bare loop and seven libraries that consume Kafka from Python.

    python tests/bench/against_peers.py [--quick] [--json FILE] [--small] [--only NAME]...

One Apache Kafka of this machine and the model servers have all CPUs but one; the contender has that one for itself. All
get the same events, the same engine, and at-least-once: a result is delivered before its offset is committed. Measured:

1. throughput and CPU an event with a model server that answers at once (``bare/instant_server.py``);
2. throughput when the model is the bottleneck: mixed lengths, a server that takes what rows and padded length cost
   (``peers/paced_server.py``);
3. p50 and p99 of the latency, by the broker's clock, at 60 % of the slowest contender's figure of 2;
4. the largest resident set in the first seconds on a lag of 1,000 and of 1,000,000 small records;
5. duplicates and losses after two SIGKILLs on the way, with a restart each; for the worker in exactly_once as well.

``--quick``: 1 and 2 once for the worker, the loop and the two fastest peers. Runs take turns, and each round's runs
make the pairs. Peers are installed on first use, each in an environment of its own under ``.cache/bench``, from the
versions in ``peers/pipelines/requirements``; one that cannot be installed or run is named with its error. ``--small``
tries everything with few events, and its figures mean nothing.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import click
from apache_kafka import KafkaUnavailable, fetch_jars
from bench.peers.contenders import EXACTLY_ONCE, LOOP, PEERS, QUICK, WORKER, NotInstalledError, install
from bench.peers.measures import killed, latency, peak_memory, throughput
from bench.peers.reviews import small_events
from bench.peers.section import Figures, section
from bench.peers.stage import FailedError, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.peers.contenders import Contender

LOAD = 0.6
LONGEST_SECONDS = 21 * 60.0
"""No measurement begins later than this after the installation, so that an unattended run ends."""


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    enough: float
    """Seconds after which a throughput that is slow is measured well enough."""
    instant: int
    """Events."""
    bound: int
    seconds: float
    """Of the latency's load."""
    killed: int
    lags: tuple[int, int]
    lag_seconds: float


FULL = Size(
    rounds=3, enough=8.0, instant=8000, bound=1600, seconds=10.0, killed=450, lags=(1_000, 1_000_000), lag_seconds=5.0
)
SHORT = Size(rounds=1, enough=4.0, instant=8000, bound=1000, seconds=0.0, killed=0, lags=(0, 0), lag_seconds=0.0)
SMALL = Size(rounds=1, enough=8.0, instant=800, bound=800, seconds=2.0, killed=300, lags=(100, 2_000), lag_seconds=1.0)


class Comparison:
    """Measures contenders in turn; one that fails is named, and left out from then on."""

    def __init__(self, stage: Stage, contenders: list[Contender], found: dict[str, Figures], give_up: float) -> None:
        """``give_up``: monotonic seconds after which no measurement begins."""
        self._stage, self._contenders, self._found = stage, contenders, found
        self._give_up = give_up
        self.late = False
        """Whether the time was used up before the end."""

    def throughputs(self, size: Size) -> None:
        """Every contender in every round; the first one of a round is another each time."""
        for number in range(size.rounds):
            for contender in self._in_turn(number):
                with self._named(contender, f"round {number + 1}, instant model") as figures:
                    run = throughput(self._stage, contender, self._stage.instant, size.instant, size.enough)
                    figures.instant.append(run)
            for contender in self._in_turn(number):
                with self._named(contender, f"round {number + 1}, model as the bottleneck") as figures:
                    run = throughput(self._stage, contender, self._stage.paced, size.bound, size.enough)
                    figures.bound.append(run)

    def slowest(self) -> float:
        """Events a second of the slowest when the model is the bottleneck. Raises ValueError when there is none."""
        runs = [figures.bound for figures in self._found.values() if figures.bound and figures.error is None]
        return min(statistics.median(run.events_per_second for run in one) for one in runs)

    def latencies(self, rate: float, seconds: float) -> None:
        """The same open-loop load for all."""
        for contender in self._in_turn(0):
            with self._named(contender, f"latency at {rate:.0f}/s") as figures:
                figures.latency = latency(self._stage, contender, rate, seconds)

    def kills(self, count: int) -> None:
        """Two SIGKILLs each."""
        for contender in self._in_turn(0):
            with self._named(contender, "SIGKILL") as figures:
                figures.audit = killed(self._stage, contender, count)

    def memory(self, lag: int, seconds: float) -> None:
        """One topic for all, each with a group of its own."""
        source = self._stage.topics().source
        self._stage.send(source, small_events(lag))
        for contender in self._in_turn(0):
            with self._named(contender, f"memory at a lag of {lag:,}") as figures:
                figures.memory[lag] = peak_memory(self._stage, contender, source, seconds)

    def exactly_once(self, count: int) -> None:
        """The same SIGKILLs of a worker that writes in transactions."""
        if not self.late:
            with self._named(EXACTLY_ONCE, "SIGKILL") as figures:
                figures.audit = killed(self._stage, EXACTLY_ONCE, count)

    def _in_turn(self, number: int) -> Iterator[Contender]:
        left = [one for one in self._contenders if self._found[one.name].error is None]
        first = number % len(left) if left else 0
        for contender in left[first:] + left[:first]:
            self.late = self.late or time.monotonic() > self._give_up
            if not self.late:
                yield contender

    @contextmanager
    def _named(self, contender: Contender, what: str) -> Iterator[Figures]:
        figures = self._found[contender.name]
        started = time.monotonic()
        try:
            yield figures
        except Exception as error:  # others' code: whatever comes of it is named, and the rest is measured
            said = str(error) if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"
            figures.error = f"{what}: {said}"
        outcome = "" if figures.error is None else figures.error
        print(f"{what:<36} {contender.name:<18} {time.monotonic() - started:5.1f} s  {outcome}", flush=True)


@click.command()
@click.option("--quick", is_flag=True, help="Throughput of the worker, the loop and two peers, in about a minute.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where the report's section goes.")
@click.option("--small", is_flag=True, help="Everything with few events: whether it runs at all.")
@click.option("--only", multiple=True, help="Names of peers; default all.")
def main(quick: bool, file: Path | None, small: bool, only: tuple[str, ...]) -> None:
    """Measure and print; say so when it cannot be measured here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    started = time.monotonic()
    chosen = only or (QUICK if quick else ())
    report = _measured(quick, small, [peer for peer in PEERS if not chosen or peer.name in chosen])
    for line in _lines(report):
        print(line)
    print(f"{time.monotonic() - started:.0f} s")
    if file is not None:
        file.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")


def _measured(quick: bool, small: bool, peers: list[Contender]) -> dict[str, object]:
    title = "Worker against peers"
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return {"title": title, "not_measured": "two CPUs and Linux are needed, so that nothing shares a contender's"}
    try:
        jars = fetch_jars()
    except KafkaUnavailable as error:
        return {"title": title, "not_measured": str(error)}
    pythons = {}
    found = {one.name: Figures() for one in (WORKER, LOOP, *peers, EXACTLY_ONCE)}
    for peer, python in install(peers).items():
        if isinstance(python, NotInstalledError):
            for contender in peers:
                if contender.peer == peer:
                    found[contender.name].error = f"not installed: {python}"
        else:
            pythons[peer] = python
    give_up = time.monotonic() + LONGEST_SECONDS
    size = SMALL if small else SHORT if quick else FULL
    rate = None
    with tempfile.TemporaryDirectory() as folder, Stage(jars, Path(folder), pythons) as stage:
        throughput(
            stage, LOOP, stage.instant, size.instant // 2, size.enough
        )  # the broker's code is compiled while it runs
        comparison = Comparison(stage, [WORKER, LOOP, *peers], found, give_up)
        comparison.throughputs(size)
        if not quick:
            rate = LOAD * comparison.slowest()
            comparison.latencies(rate, size.seconds)
            for lag in size.lags:
                comparison.memory(lag, size.lag_seconds)
            comparison.kills(size.killed)
            comparison.exactly_once(size.killed)
    notes = [
        "Contender on one CPU; broker and model servers on the others.",
        f"Each throughput {size.rounds} x; {size.instant:,} events where the model is instant, else {size.bound:,}.",
        "Lengths are lognormal with the median and the 90 % quantile of real shop reviews, the same for all.",
        "Plain peers: 64 records or 50 ms, windows in the order of arrival. The worker and the loop: as they come.",
    ]
    if not quick:
        notes.append(f"SIGKILL at a third and at two thirds of {size.killed:,} results; memory sums all processes.")
    if comparison.late:
        notes.append(f"The time of {LONGEST_SECONDS / 60:.0f} minutes was used up before the end.")
    return section(found, WORKER.name, rate, notes)


def _lines(report: dict[str, object]) -> Iterator[str]:
    if "not_measured" in report:
        yield f"not measured: {report['not_measured']}"
        return
    for table in (report, *report["tables"]):  # type: ignore[misc]
        yield ""
        for row in (table["columns"], *table["rows"]):
            yield " | ".join(
                "-" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row
            )
    yield ""
    for goal in report["goals"]:  # type: ignore[attr-defined]
        yield f"{'met' if goal['met'] else 'NOT MET'}: {goal['goal']}: {goal['found']}"


if __name__ == "__main__":
    main()
