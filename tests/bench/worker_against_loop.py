"""What the worker's guarantees cost: ``rexstream run`` against a bare loop on the same engine, in pairs.

    python tests/bench/worker_against_loop.py [--events 6000] [--pairs 5]

Apache Kafka of this machine and a model server that answers at once share one CPU; worker or loop has another one for
itself. Each run reads a full topic; measured is the stretch from the first tenth of the results to the last, which
leaves start and joining out. Reported are events a second, CPU milliseconds an event of the process (user and system),
and per pair the ratio of the worker to the loop: the median with its range. One two-level task, shipped sample reviews.
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

import click
import yaml
from apache_kafka import ApacheKafka, KafkaUnavailable, fetch_jars
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from stub_server import write_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
TASK = "product_features"
PARTITIONS = 4
LOOK_SECONDS = 0.02
LONGEST_SECONDS = 300.0


class Run(NamedTuple):
    """One process on one full topic."""

    events_per_second: float
    cpu_ms_per_event: float


class Stage:
    """Broker and model server, each on the last CPU; what is measured runs on the first."""

    def __init__(self, folder: Path, bootstrap: str, target: str, events: int, cpu: int) -> None:
        self.folder, self.bootstrap, self.target, self.events, self.cpu = folder, bootstrap, target, events, cpu

    def run(self, who: str) -> Run:
        """``who``: worker or loop."""
        mark = uuid.uuid4().hex[:8]
        names = tuple(f"{label}-{mark}" for label in ("in", "out", "dead"))
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for created in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            created.result(30)
        self._fill(names[0])
        command = self._worker(names) if who == "worker" else self._loop(names)
        with (self.folder / f"{who}-{mark}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=lambda: os.sched_setaffinity(0, {self.cpu}),
            )
        try:
            return self._measured(process, names[1], Path(log.name))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _measured(self, process: subprocess.Popen[bytes], output: str, log: Path) -> Run:
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        partitions = [TopicPartition(output, number) for number in range(PARTITIONS)]
        began: tuple[float, float, int] | None = None
        give_up = time.monotonic() + LONGEST_SECONDS
        try:
            while True:
                done = sum(reader.get_watermark_offsets(one, timeout=10)[1] for one in partitions)
                now, cpu = time.monotonic(), _cpu_seconds(process.pid)
                if began is None and done >= self.events // 10:
                    began = now, cpu, done
                if done >= self.events:
                    assert began is not None
                    events = done - began[2]
                    return Run(events / (now - began[0]), (cpu - began[1]) / events * 1000)
                if process.poll() is not None or now > give_up:
                    raise RuntimeError(f"stopped after {done} of {self.events} results: {log.read_text()[-2000:]}")
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

    def _loop(self, names: Sequence[str]) -> list[str]:
        program = str(Path(__file__).parent / "bare/loop.py")
        bundle = str(self.folder / "bundle")
        return [sys.executable, program, self.bootstrap, names[0], names[0], names[1], self.target, bundle, TASK]

    def _worker(self, names: Sequence[str]) -> list[str]:
        config = self.folder / f"{names[0]}.yaml"
        settings = {
            "kafka": {"bootstrap_servers": self.bootstrap, "group_id": names[0]},
            "routes": [{"input": names[0], "tasks": [TASK], "output": names[1]}],
            "model": {"target": self.target, "name": "instant", "bundle": str(self.folder / "bundle")},
            "delivery": {"dead_letter_topic": names[2]},
            "observability": {"http": "127.0.0.1:0"},
        }
        config.write_text(yaml.safe_dump(settings))
        return [sys.executable, "-m", "consumer", "run", "--config", str(config)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--events", default=6000, show_default=True, help="Records of each run.")
@click.option("--pairs", default=5, show_default=True, help="Runs of each of the two, in turn.")
def main(events: int, pairs: int) -> None:
    """Measure and print; say so when it cannot be measured here."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        print("not measured: two CPUs and Linux are needed, so that nothing shares the worker's")
        return
    try:
        jars = fetch_jars()
    except KafkaUnavailable as error:
        print(f"not measured: {error}")
        return
    every = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bundle(folder / "bundle")
        os.sched_setaffinity(0, every - {min(every)})  # children inherit it
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
            stage = Stage(folder, broker.bootstrap_servers, server.stdout.readline().strip(), events, min(every))
            stage.run("loop")  # the broker's code is compiled while it runs
            runs: dict[str, list[Run]] = {"worker": [], "loop": []}
            for number in range(pairs):
                for who in ("worker", "loop") if number % 2 == 0 else ("loop", "worker"):
                    runs[who].append(stage.run(who))
                    print(
                        f"{who:<7} {runs[who][-1].events_per_second:7.0f} events/s   "
                        f"{runs[who][-1].cpu_ms_per_event:.3f} ms CPU an event",
                        flush=True,
                    )
        finally:
            server.kill()
            server.wait()
            broker.stop()
    paired = list(zip(runs["worker"], runs["loop"], strict=True))
    _report("events a second, worker / loop", [w.events_per_second / b.events_per_second for w, b in paired])
    _report("CPU an event, worker / loop", [w.cpu_ms_per_event / b.cpu_ms_per_event for w, b in paired])


def _report(what: str, ratios: list[float]) -> None:
    print(f"{what:<34} {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
