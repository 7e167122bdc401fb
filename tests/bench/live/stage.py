"""The demo model on the last CPU; on the others the embedded broker, the worker, and whoever measures.

Needs no Java: where the model is the bottleneck, what the broker costs does not show.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from consumer.kafka.tools.reader import Tail
from consumer.local.demo import MODEL, Demo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT: Final = Path(__file__).parents[3]
PARTITIONS: Final = 4
START_SECONDS: Final = 120.0
STALL_SECONDS: Final = 60.0
"""Without a result, a run has failed."""
FETCH_MS: Final = 5
"""Of the worker's consumer. The embedded broker answers a fetch that found nothing only when its time is up, Kafka when
a record comes: with the default of half a second records would come in bursts."""
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Unmeasurable(Exception):  # noqa: N818 - a state of the machine
    """Why nothing can be measured here."""


class Passed(NamedTuple):
    """One event: the timestamps of its record and of its result, in seconds of the wall clock."""

    number: int
    arrived: float
    done: float
    dispatched: float
    """Seconds that its windows were at the dispatcher, from being handed in to being answered."""


class Process:
    """``rexstream ARGUMENTS`` on some CPUs, with its output in a file."""

    def __init__(
        self, arguments: Sequence[str], log: Path, cpus: set[int], program: Sequence[str] = ("-m", "consumer")
    ) -> None:
        """``program``: what Python runs in place of ``rexstream``."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )

    def wait(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Raises RuntimeError with the end of the log when the process ends first, or takes longer."""
        give_up = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self._process.args!r} is not ready: {self.output()[-2000:]}")
            time.sleep(0.05)

    def output(self) -> str:
        """All that it printed."""
        return self._log.read_text("utf-8", errors="replace")

    def cpu_seconds(self) -> float:
        """User and system, of all its threads, to the nanosecond: its clock, whose number Linux makes of its id."""
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL half a minute later."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stage(ExitStack):
    """Broker and model server. A context manager that stops what it started, also at SIGTERM."""

    def __init__(self, folder: Path) -> None:
        """``folder`` keeps the exported model. Raises Unmeasurable."""
        super().__init__()
        if not hasattr(os, "sched_setaffinity") or len(cpus := os.sched_getaffinity(0)) < 2:
            raise Unmeasurable("two CPUs and Linux are needed, so that the model server has one for itself")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self._folder = folder
        models, _ = Demo(folder).export_model()
        self.bundle = models / MODEL / "1" / "bundle"
        self._others = cpus - {max(cpus)}
        address = folder / "broker.address"
        address.unlink(missing_ok=True)
        broker = self._started("broker", "--port", "0", "--address-file", str(address), "--exit-with-parent")
        served = ("serve", "--models", str(models), "--port", "0", "--json", "--exit-with-parent")
        self.server = self._started(*served, cpus={max(cpus)})
        os.sched_setaffinity(0, self._others)
        self.callback(os.sched_setaffinity, 0, cpus)
        try:
            broker.wait(address.exists)
            self.server.wait(lambda: '{"address"' in self.server.output())
        except BaseException:
            self.close()
            raise
        self.broker = address.read_text().strip()
        line = next(line for line in self.server.output().splitlines() if line.startswith('{"address"'))
        self.target = str(json.loads(line)["address"])

    def _started(self, *arguments: str, cpus: set[int] | None = None) -> Process:
        process = Process(arguments, self._folder / f"{arguments[0]}.log", cpus or self._others)
        self.callback(process.stop)
        return process

    def worker(self, name: str, task: str, batching: Mapping[str, Any]) -> Worker:
        """One that has joined; its topics are named after ``name``. It runs until the stage ends or it is stopped."""
        topics = {kind: f"{name}.{kind}" for kind in ("in", "out", "dead")}
        http = f"127.0.0.1:{_free_port()}"
        config = self._folder / f"{name}.yaml"
        settings = {
            "kafka": {"bootstrap_servers": self.broker, "group_id": name, "client": {"fetch.wait.max.ms": FETCH_MS}},
            "routes": [{"input": topics["in"], "tasks": [task], "output": topics["out"]}],
            "model": {"target": self.target, "name": MODEL, "bundle": str(self.bundle)},
            "batching": dict(batching),
            "delivery": {"dead_letter_topic": topics["dead"]},
            "observability": {"http": http},
        }
        config.write_text(yaml.safe_dump(settings))
        producer = Producer({"bootstrap.servers": self.broker, "linger.ms": 0})
        for topic in topics.values():  # the embedded broker makes a topic when it is first asked about it
            producer.list_topics(topic, timeout=10)
        process = Process(("run", "--config", str(config)), self._folder / f"{name}.log", self._others)
        self.callback(process.stop)
        process.wait(lambda: _answers(f"http://{http}/readyz"))
        return Worker(process, http, self.broker, topics, producer)

    def shadow(self, name: str, share: float) -> Shadow:
        """A shadow run beside the worker of that name, of all that its input topic holds and gets, once it has results.

        It runs until the stage ends or it is stopped, and then goes on where it was.
        """
        results = f"{name}.out.shadow"
        producer = Producer({"bootstrap.servers": self.broker})
        for topic in (results, f"{name}.dead.shadow"):
            producer.list_topics(topic, timeout=10)
        program = Path(__file__).parent / "shadow_worker.py"
        arguments = str(self._folder / f"{name}.yaml"), f"{name}.in", str(share)
        process = Process(arguments, self._folder / f"{name}.shadow.log", self._others, (str(program),))
        self.callback(process.stop)
        shadow = Shadow(process, self.broker, results)
        before = shadow.results()
        process.wait(lambda: shadow.results() > before)
        return shadow


class Shadow:
    """A shadow run."""

    def __init__(self, process: Process, broker: str, topic: str) -> None:
        self._process = process
        self._reader = Consumer({"bootstrap.servers": broker, "group.id": topic})
        self._topic = topic

    def results(self) -> int:
        """So many are in its topic now, those of earlier runs included."""
        partitions = self._reader.list_topics(self._topic, timeout=10).topics[self._topic].partitions
        places = [TopicPartition(self._topic, number) for number in partitions]
        return sum(self._reader.get_watermark_offsets(place, timeout=10)[1] for place in places)

    def stop(self) -> None:
        """Drain and end."""
        self._process.stop()
        self._reader.close()


class Worker:
    """A worker that takes what is fed to it."""

    def __init__(self, process: Process, http: str, broker: str, topics: Mapping[str, str], producer: Producer) -> None:
        self._process = process
        self._http = http
        self._broker = broker
        self._topics = topics
        self._producer = producer

    def run(self, texts: Sequence[str], moments: Sequence[float] | None = None) -> list[Passed]:
        """Produce an event for each text at its moment (seconds from now; None: all at once), however the worker does.

        Returns once every event has its result. Raises RuntimeError for a dead letter, and when no result comes for a
        minute.
        """
        with Tail(self._broker, (self._topics["out"], self._topics["dead"]), "end") as tail:
            began = time.monotonic()
            found: list[Passed] = []
            sent, last = 0, began
            while len(found) < len(texts):
                due = began + (0.0 if moments is None else moments[sent]) if sent < len(texts) else last + 1
                if sent < len(texts) and due <= time.monotonic():
                    event = {"event_id": str(sent), "text": texts[sent]}
                    self._producer.produce(
                        self._topics["in"],
                        json.dumps(event, ensure_ascii=False).encode(),
                        str(sent).encode(),  # results without keys would wait for those before them
                        partition=sent % PARTITIONS,
                    )
                    self._producer.poll(0)
                    sent += 1
                    last = time.monotonic()
                    continue
                message = tail.poll(min(0.02, max(0.0, due - time.monotonic())))
                if message is None:
                    if time.monotonic() - last > STALL_SECONDS:
                        raise RuntimeError(f"{len(found)} of {len(texts)} results: {self._process.output()[-2000:]}")
                    continue
                last = time.monotonic()
                if message.topic() == self._topics["dead"]:
                    raise RuntimeError(f"an event became a dead letter: {message.headers()}")
                result = json.loads(message.value() or b"")
                arrived, timing = result["record"]["timestamp"] / 1000, result["timing"]
                dispatched = (timing["queued_ms"] + timing["model_ms"]) / 1000
                found.append(Passed(int(result["event_id"]), arrived, message.timestamp()[1] / 1000, dispatched))
        self._producer.flush(10)
        return sorted(found)

    def metrics(self) -> dict[str, float]:
        """Samples by name, with the values of their labels in brackets: ``rexstream_stage_seconds_sum(queue)``."""
        with _LOOPBACK.open(f"http://{self._http}/metrics", timeout=5) as response:
            families = text_string_to_metric_families(response.read().decode())
        return {
            f"{sample.name}({','.join(sample.labels.values())})" if sample.labels else sample.name: sample.value
            for family in families
            for sample in family.samples
        }

    def stop(self) -> None:
        """Drain and end."""
        self._process.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with _LOOPBACK.open(url, timeout=5):
            return True
    except OSError:  # an answer other than 200 among them
        return False
