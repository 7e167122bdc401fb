"""What the worker's guarantees cost: ``rexstream run`` against a bare loop on the same engine, in pairs.

    python tests/bench/worker_against_loop.py [--quick] [--events 12000] [--pairs 5] [--json FILE]
    python tests/bench/worker_against_loop.py --engine CHECKOUT --loop FILE

Apache Kafka of this machine and a model server that answers at once share one CPU; worker or loop has another one for
itself. Each run reads a full topic; measured is the stretch from a quarter of the results to three: start and joining
are left out, and at both ends the worker has as many records in flight, with a backlog behind them. Up to November
2026 it was from a tenth to the end of 3,000 or 6,000, of which up to 2,000 were tokenised before it began: that
flattered the worker. Reported are events a second, CPU milliseconds an event of the process (user and system),
and per pair the ratio of the worker to the loop: the median with its range. Shipped sample reviews; one task of two
levels, and three tasks. ``--engine`` with ``--loop`` puts the loop on the engine of an older checkout.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import click
import yaml
from apache_kafka import ApacheKafka, KafkaUnavailable, fetch_jars
from bench.report.section import Goal, Section
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from stub_server import write_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
TITLE = "The worker against a bare loop"
CLAIM = """\
What the worker's guarantees cost: the loop has the same engine, sorts its batches by length, and has no order, no dead
letters, no retries, no metrics and no bounds."""
TASKS = (("product_features",), ("product_features", "sentiment", "category"))
QUICK_EVENTS, QUICK_PAIRS = 8000, 2
PARTITIONS = 4
LOOK_SECONDS = 0.02
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
LONGEST_SECONDS = 300.0


class Run(NamedTuple):
    """One process on one full topic."""

    events_per_second: float
    cpu_ms_per_event: float


class Loop(NamedTuple):
    """A program to be the loop, and the checkout whose engine it runs on."""

    program: Path = Path(__file__).parent / "bare/loop.py"
    engine: Path = ROOT


class Stage:
    """Broker and model server, each on the last CPU; what is measured runs on the first."""

    def __init__(self, folder: Path, bootstrap: str, target: str, events: int, cpu: int, loop: Loop) -> None:
        self.folder, self.bootstrap, self.target, self.events, self.cpu = folder, bootstrap, target, events, cpu
        self.loop = loop

    def run(self, who: str, tasks: Sequence[str]) -> Run:
        """``who``: worker or loop."""
        mark = uuid.uuid4().hex[:8]
        names = tuple(f"{label}-{mark}" for label in ("in", "out", "dead"))
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for created in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            created.result(30)
        self._fill(names[0])
        command = self._worker(names, tasks) if who == "worker" else self._loop(names, tasks)
        engine = ROOT if who == "worker" else self.loop.engine
        with (self.folder / f"{who}-{mark}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=engine,
                env={**os.environ, "PYTHONPATH": str(engine)},
                preexec_fn=lambda: os.sched_setaffinity(0, {self.cpu}),
            )
        try:
            return self._measured(process, names[1], self.events * len(tasks), Path(log.name))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _measured(self, process: subprocess.Popen[bytes], output: str, results: int, log: Path) -> Run:
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        partitions = [TopicPartition(output, number) for number in range(PARTITIONS)]
        began: tuple[float, float, int] | None = None
        give_up = time.monotonic() + LONGEST_SECONDS
        try:
            while True:
                done = sum(reader.get_watermark_offsets(one, timeout=10)[1] for one in partitions)
                now, cpu = time.monotonic(), _cpu_seconds(process.pid)
                if began is None and done >= results // 4:
                    began = now, cpu, done
                if done >= 3 * results // 4:
                    assert began is not None
                    events = (done - began[2]) * self.events / results
                    return Run(events / (now - began[0]), (cpu - began[1]) / events * 1000)
                if process.poll() is not None or now > give_up:
                    raise RuntimeError(f"stopped after {done} of {results} results: {log.read_text()[-2000:]}")
                time.sleep(LOOK_SECONDS)
        finally:
            reader.close()

    def _fill(self, topic: str) -> None:
        texts = [json.loads(line)["text"] for line in (ROOT / "schemas/samples/reviews.jsonl").open(encoding="utf-8")]
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 50})
        for number in range(self.events):
            event = {"event_id": f"e{number}", "text": f"{texts[number % len(texts)]}{number}"}
            producer.produce(topic, json.dumps(event, ensure_ascii=False).encode(), partition=number % PARTITIONS)
        assert producer.flush(60) == 0

    def _loop(self, names: Sequence[str], tasks: Sequence[str]) -> list[str]:
        where = [self.bootstrap, names[0], names[0], names[1], self.target, str(self.folder / "bundle")]
        return [sys.executable, str(self.loop.program), *where, ",".join(tasks)]

    def _worker(self, names: Sequence[str], tasks: Sequence[str]) -> list[str]:
        config = self.folder / f"{names[0]}.yaml"
        settings = {
            "kafka": {"bootstrap_servers": self.bootstrap, "group_id": names[0]},
            "routes": [{"input": names[0], "tasks": list(tasks), "output": names[1]}],
            "model": {"target": self.target, "name": "instant", "bundle": str(self.folder / "bundle")},
            "delivery": {"dead_letter_topic": names[2]},
            "observability": {"http": "127.0.0.1:0"},
        }
        config.write_text(yaml.safe_dump(settings))
        return [sys.executable, "-m", "consumer", "run", "--config", str(config)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(stage: Stage, tasks: Sequence[str], pairs: int) -> list[tuple[Run, Run]]:
    """Worker and loop in turn."""
    runs: dict[str, list[Run]] = {"worker": [], "loop": []}
    for number in range(pairs):
        for who in ("worker", "loop") if number % 2 == 0 else ("loop", "worker"):
            runs[who].append(stage.run(who, tasks))
            print(
                f"{who:<7} {runs[who][-1].events_per_second:7.0f} events/s   "
                f"{runs[who][-1].cpu_ms_per_event:.3f} ms CPU an event",
                flush=True,
            )
    return list(zip(runs["worker"], runs["loop"], strict=True))


def section(found: Sequence[tuple[Sequence[str], Sequence[tuple[Run, Run]]]], events: int, loop: Loop) -> Section:
    """For the report. The goals are about the loop on an older engine."""
    rows: list[list[str | int | float | None]] = []
    goals = []
    older = loop.engine != ROOT
    for tasks, pairs in found:
        rate = [worker.events_per_second / bare.events_per_second for worker, bare in pairs]
        cpu = [worker.cpu_ms_per_event / bare.cpu_ms_per_event for worker, bare in pairs]
        count = f"{len(tasks)} task{'s' * (len(tasks) > 1)} an event"
        rows.append([f"events/s, {count}", in_words(rate), *(statistics.median(each) for each in _rates(pairs))])
        rows.append([f"CPU an event, {count}", in_words(cpu), *(statistics.median(each) for each in _costs(pairs))])
        if older:
            goals.append(Goal(f"events/s, worker / loop >= 1.0, {count}", in_words(rate), statistics.median(rate) >= 1))
            goals.append(Goal(f"CPU, worker / loop <= 1.15, {count}", in_words(cpu), statistics.median(cpu) <= 1.15))
    return Section(
        TITLE,
        "The worker against a loop on the engine of an older checkout." if older else CLAIM,
        columns=["", "worker / loop, median of pairs, range", "worker (events/s, ms)", "loop (events/s, ms)"],
        rows=rows,
        goals=goals,
        notes=[f"{events} events a run, {len(found[0][1])} pairs; Apache Kafka, and a model that answers at once."],
    )


def in_words(ratios: Sequence[float]) -> str:
    """The median with the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _rates(pairs: Sequence[tuple[Run, Run]]) -> list[list[float]]:
    return [[pair[side].events_per_second for pair in pairs] for side in (0, 1)]


def _costs(pairs: Sequence[tuple[Run, Run]]) -> list[list[float]]:
    return [[pair[side].cpu_ms_per_event for pair in pairs] for side in (0, 1)]


@click.command()
@click.option("--quick", is_flag=True, help="Two short pairs, one task.")
@click.option(
    "--events",
    default=12_000,
    show_default=True,
    help="Records of each run: 8,000 or more, four times what a worker has in flight.",
)
@click.option("--pairs", default=5, show_default=True, help="Runs of each of the two, in turn.")
@click.option("--loop", "program", type=FILE, default=Loop().program, help="The loop, if not bare/loop.py.")
@click.option("--engine", type=FOLDER, default=ROOT, help="A checkout whose engine the loop runs on, if not this one.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(quick: bool, events: int, pairs: int, program: Path, engine: Path, path: Path | None) -> None:
    """Measure and print; say so when it cannot be measured here."""
    if quick:
        events, pairs = QUICK_EVENTS, QUICK_PAIRS
    result = _result(events, pairs, TASKS[:1] if quick else TASKS, Loop(program.absolute(), engine.absolute()))
    if result.not_measured:
        print(f"not measured: {result.not_measured}")
    for row in result.rows:
        print(f"{row[0]:<34} {row[1]}")
    if path is not None:
        result.write(path)


def _result(events: int, pairs: int, every: Sequence[Sequence[str]], loop: Loop) -> Section:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return Section(TITLE, not_measured="two CPUs and Linux are needed, so that nothing shares the worker's")
    try:
        jars = fetch_jars()
    except KafkaUnavailable as error:
        return Section(TITLE, not_measured=str(error))
    cpus = os.sched_getaffinity(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that broker and server are stopped
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bundle(folder / "bundle")
        os.sched_setaffinity(0, cpus - {min(cpus)})  # children inherit it
        (folder / "kafka").mkdir()
        broker = ApacheKafka(jars, folder / "kafka")
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "bare/instant_server.py"), str(folder / "bundle")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            broker.start()
            assert server.stdout is not None
            target = server.stdout.readline().strip()
            stage = Stage(folder, broker.bootstrap_servers, target, events, min(cpus), loop)
            stage.run("loop", every[0])  # the broker's code is compiled while it runs
            return section([(tasks, measured(stage, tasks, pairs)) for tasks in every], events, loop)
        finally:
            server.kill()
            server.wait()
            broker.stop()


if __name__ == "__main__":
    main()
