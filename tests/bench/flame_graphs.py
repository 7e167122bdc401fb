"""Where an event's CPU goes: flame graphs of a worker that drains a backlog, of the landed revision and of today's.

    python tests/bench/flame_graphs.py [--quick] [--json FILE] [--pictures build/bench]

Apache Kafka of this machine and a model server that answers at once have all CPUs but one; the worker has that one for
itself, and a topic that stays full. Each run has three stretches, after the first results: without a profiler, for the
CPU an event of each thread, from the kernel's clocks; under py-spy for the share of each part; and under py-spy again
for the picture. What a thread takes is divided among parts by its own samples. librdkafka's and gRPC's own threads run
no Python: they are measured and not sampled.

py-spy is installed on first use, in an environment of its own under ``.cache/bench``, and the landed revision from this
repository's history under ``.cache/releases``. Where one cannot be had, or a process may not be looked into (ptrace),
nothing is measured, and the reason is given.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import click
from apache_kafka import KafkaUnavailable, fetch_jars
from bench.flame.samples import by_part, shares
from bench.peers.contenders import ROOT, WORKER, NotInstalledError, environment
from bench.peers.reviews import events
from bench.peers.stage import TODAYS, FailedError, Stage
from bench.report.section import Plot, Section, Series
from chaos.releases import OLD, command
from chaos.scenario import Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.peers.stage import Process

TITLE: Final = "Where an event's CPU goes, before and after"
CLAIM: Final = """\
CPU microseconds an event of each part of a worker that drains a backlog with an instant model: of the revision that was
landed first, and of today's."""
REQUIREMENTS: Final = Path(__file__).parent / "flame/requirements.txt"
RATE: Final = 200
FIRST: Final = 500
"""Results that are waited for: the worker has joined, and its caches are warm."""
LONGEST_SECONDS: Final = 60.0


class Size(NamedTuple):
    """How much is measured: runs of each release; events; seconds of the three stretches."""

    runs: int
    events: int
    bare: float
    sampled: int
    pictured: int


FULL: Final = Size(3, 100_000, 8.0, 10, 5)
QUICK: Final = Size(1, 45_000, 3.0, 4, 3)


class NotMeasured(Exception):  # noqa: N818 - not a fault of the benchmark
    """This machine does not have what is needed. The message says what."""


class Found(NamedTuple):
    """Of one run."""

    microseconds: Mapping[str, float]
    """CPU an event, by part."""
    events_per_second: float
    """Without the profiler."""

    @property
    def cpu(self) -> float:
        """Of all parts."""
        return sum(self.microseconds.values())


class Profiler:
    """py-spy, in an environment of its own."""

    def __init__(self) -> None:
        """Raises NotMeasured when it cannot be installed."""
        python = environment(ROOT / ".cache/bench" / REQUIREMENTS.read_text().strip().replace("==", "-"), REQUIREMENTS)
        if isinstance(python, NotInstalledError):
            raise NotMeasured(f"py-spy cannot be installed: {python}")
        self._program = str(python.with_name("py-spy"))

    def record(self, pid: int, seconds: int, form: str, file: Path) -> None:
        """Samples of all threads that are not idle; ``form`` is raw or flamegraph.

        Raises NotMeasured where a process may not look into another.
        """
        # Threads that py-spy stops for a sample, as it does by default, look busy at the next one while they wait.
        how = ("--nonblocking", "--threads", "--function", "--rate", str(RATE), "--duration", str(seconds))
        done = subprocess.run(
            [self._program, "record", "--pid", str(pid), *how, "--format", form, "--output", str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + LONGEST_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            said = " / ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
            raise NotMeasured(f"py-spy cannot look into the worker: {said[:300]}")


def measured(
    stage: Stage, profiler: Profiler, source: str, rexstream: Sequence[str], size: Size, picture: Path
) -> Found:
    """One worker on the full topic ``source``. Raises FailedError and NotMeasured."""
    topics = stage.topics(source)
    raw = picture.with_suffix(".txt")
    with stage.reader() as reader, stage.running(WORKER, topics, stage.instant, rexstream) as process:
        give_up = time.monotonic() + LONGEST_SECONDS
        while stage.written(reader, topics.output) < FIRST:
            process.require_running()
            if time.monotonic() > give_up:
                raise FailedError(f"no {FIRST} results in {LONGEST_SECONDS:.0f} s: {process.last_words()}")
            time.sleep(0.05)
        done, began, before = stage.written(reader, topics.output), time.monotonic(), _cpu(process)
        time.sleep(size.bare)
        count = stage.written(reader, topics.output) - done
        seconds = time.monotonic() - began
        after = _cpu(process)
        if count <= 0:
            raise FailedError(f"no result in {seconds:.0f} s, behind the first {done}: {process.last_words()}")
        profiler.record(process.pid, size.sampled, "raw", raw)
        profiler.record(process.pid, size.pictured, "flamegraph", picture)
        process.require_running()
        if stage.written(reader, topics.output) >= size.events:
            raise FailedError(f"the backlog of {size.events:,} events was drained before the end")
    unknown = "", 0.0
    each = {
        thread: (name, (now - before.get(thread, unknown)[1]) / count * 1e6) for thread, (name, now) in after.items()
    }
    return Found(by_part(each, shares(raw.read_text().splitlines())), count / seconds)


def _cpu(process: Process) -> dict[int, tuple[str, float]]:
    """Name and CPU seconds of every thread, by its id."""
    found = {}
    for folder in Path(f"/proc/{process.pid}/task").iterdir():
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        fields = rest.split()
        found[int(folder.name)] = name, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def section(pairs: Sequence[tuple[Found, Found]], pictures: Sequence[str]) -> Section:
    """For the report. ``pairs``: before and after, of the same round; ``pictures``: links beside it."""
    names = {part for pair in pairs for side in pair for part in side.microseconds}
    medians = [
        {name: statistics.median(pair[side].microseconds.get(name, 0.0) for pair in pairs) for name in names}
        for side in (0, 1)
    ]
    before, after = medians
    ordered = sorted(names, key=lambda name: -before[name])
    totals = [statistics.median(pair[side].cpu for pair in pairs) for side in (0, 1)]
    rows: list[list[str | int | float | None]] = [
        [name, before[name], f"{before[name] / totals[0]:.0%}", after[name], f"{after[name] / totals[1]:.0%}"]
        for name in ordered
    ]
    ratios = [pair[0].cpu / pair[1].cpu for pair in pairs]
    rates = [statistics.median(pair[side].events_per_second for pair in pairs) for side in (0, 1)]
    rows.append(["all", totals[0], "", totals[1], ""])
    return Section(
        TITLE,
        CLAIM,
        columns=["part", "before (us an event)", "share", "after (us an event)", "share"],
        rows=rows,
        notes=[
            f"All, before / after: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).",
            f"{len(pairs)} runs of each in turn; {rates[0]:.0f} and {rates[1]:.0f} events/s on one CPU.",
            f"Before: revision {OLD[:7]} with the packages of its time. One task; lengths as of real reviews.",
            "A part is the innermost function of ours or of a named library; C code, such as numpy's, is its caller's.",
            *pictures,
        ],
        plots=[
            Plot(
                "bars",
                "CPU an event",
                "",
                "us",
                [
                    Series("before", [before[name] for name in ordered]),
                    Series("after", [after[name] for name in ordered]),
                ],
                ordered,
            )
        ],
    )


@click.command()
@click.option("--quick", is_flag=True, help="One short run of each.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder of the graphs; default: the section's.")
def main(quick: bool, path: Path | None, pictures: Path | None) -> None:
    """Measure and print; say so when it cannot be measured here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    folder = pictures or (path.parent if path is not None else ROOT / "build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = _result(QUICK if quick else FULL, folder)
    except (NotMeasured, Skipped, KafkaUnavailable) as why:
        result = Section(TITLE, not_measured=str(why))
        print(f"not measured: {why}")
    for row in result.rows:
        print(" ".join(f"{cell if isinstance(cell, str) else format(cell or 0, '.1f'):>9}" for cell in row[1:]), row[0])
    for note in result.notes:
        print(note)
    if path is not None:
        result.write(path)


def _result(size: Size, folder: Path) -> Section:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise NotMeasured("two CPUs and Linux are needed, so that nothing shares the worker's")
    profiler = Profiler()
    landed = Path(command(OLD)[0]).with_name("python")
    # -I: this checkout's code, which PYTHONPATH names, is not its own.
    programs = {"before": (str(landed), "-I", "-m", "consumer"), "after": TODAYS}
    jars = fetch_jars()
    pairs = []
    with tempfile.TemporaryDirectory() as name, Stage(jars, Path(name), {}) as stage:
        source = stage.topics().source
        stage.send(source, events(size.events))
        for number in range(size.runs):
            found = {}
            for which in ("before", "after") if number % 2 == 0 else ("after", "before"):
                picture = folder / f"flame-graph-{which}.svg"
                found[which] = measured(stage, profiler, source, programs[which], size, picture)
                print(
                    f"{which:<7} {found[which].cpu:6.0f} us, {found[which].events_per_second:6.0f} events/s", flush=True
                )
            pairs.append((found["before"], found["after"]))
    links = [f"The flame graph {which}: [flame-graph-{which}.svg](flame-graph-{which}.svg)." for which in programs]
    return section(pairs, links)


if __name__ == "__main__":
    main()
