"""Apache Kafka and simulated model servers on this machine, topics full of reviews, and worker processes to watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import yaml
from apache_kafka import ApacheKafka
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic
from stub_server import write_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.batching.policy import CallCost

ROOT: Final = Path(__file__).resolve().parents[3]
LOOK_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 300.0
TASK: Final = "product_features"


class Topics(NamedTuple):
    """Of one run; all have equally many partitions."""

    input: str
    output: str
    dead: str
    partitions: int


class WorkerProcess:
    """``rexstream run``, seen from outside. A context manager that kills it."""

    def __init__(self, config: Path, log: Path) -> None:
        self.started_at = time.monotonic()
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "run", "--config", str(config)],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def require_running(self) -> None:
        """Raises RuntimeError with the end of its log."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the worker ended: {self._log.read_text()[-2000:]}")

    def cpu_seconds(self) -> float:
        """User and system, of all its threads, since it was started."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """The largest resident set that it ever had."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


class Stage(ExitStack):
    """A broker, and whatever is started on it; all of it ends with the block."""

    def __init__(self, jars: Path, folder: Path, bundle: Path | None = None) -> None:
        """``bundle``: of the model that the servers have, or that they pretend to have; by default a tiny one."""
        super().__init__()
        self._folder = folder
        self._bundle = bundle or write_bundle(folder / "bundle")
        (folder / "kafka").mkdir()
        self._broker = ApacheKafka(jars, folder / "kafka")
        self.callback(self._broker.stop)
        self._broker.start()
        self._bootstrap = self._broker.bootstrap_servers
        self._admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})

    def servers(self, count: int, cost: CallCost) -> list[str]:
        """Addresses of so many simulated servers, all of them in one process."""
        process = subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__).parent / "delayed_server.py"), str(self._bundle)),
                *map(str, (count, cost.floor, cost.fixed, cost.per_token, cost.per_pair)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.callback(process.wait)
        self.callback(process.kill)
        assert process.stdout is not None
        addresses = [process.stdout.readline().strip() for _ in range(count)]
        if not all(addresses):
            raise RuntimeError("the simulated model servers did not start")
        return addresses

    def topics(self, partitions: int) -> Topics:
        """New ones."""
        mark = uuid.uuid4().hex[:8]
        made = Topics(f"in-{mark}", f"out-{mark}", f"dead-{mark}", partitions)
        for created in self._admin.create_topics([NewTopic(name, partitions, 1) for name in made[:3]]).values():
            created.result(60)
        self._wait(lambda: self._has_leaders(made), ())
        return made

    def _has_leaders(self, topics: Topics) -> bool:
        try:
            return self.results(topics) == 0
        except KafkaException:  # the brokers are told of new topics a moment later
            return False

    def fill(self, topics: Topics, texts: Sequence[str], events: int, first: int = 0) -> None:
        """Texts and partitions in turn; ``first`` is the number of the first event."""
        producer = Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 50, "log_level": 0})
        for number in range(first, first + events):
            event = {"event_id": f"e{number}", "text": f"{texts[number % len(texts)]}{number}"}
            value = json.dumps(event, ensure_ascii=False).encode()
            while True:
                try:
                    producer.produce(topics.input, value, partition=number % topics.partitions)
                    break
                except BufferError:
                    producer.poll(0.1)
        if left := producer.flush(120):
            raise RuntimeError(f"{left} events could not be sent")

    def worker(
        self,
        topics: Topics,
        target: str,
        group: str,
        cost: CallCost,
        *,
        limits: Mapping[str, int] | None = None,
        max_tokens: int = 16_384,
        tasks: Sequence[str] = (TASK,),
    ) -> WorkerProcess:
        """A member of the group; it ends with the stage at the latest. ``cost`` is its ``batching.cost``."""
        name = f"{group}-{uuid.uuid4().hex[:4]}"
        config = self._folder / f"{name}.yaml"
        settings = {
            "kafka": {"bootstrap_servers": self._bootstrap, "group_id": group},
            "routes": [{"input": topics.input, "tasks": list(tasks), "output": topics.output}],
            "model": {"target": target, "name": "rexuninlu", "bundle": str(self._bundle)},
            "batching": {
                "max_tokens": max_tokens,
                "cost": {
                    "floor_seconds": cost.floor,
                    "fixed_seconds": cost.fixed,
                    "linear_seconds": cost.per_token,
                    "square_seconds": cost.per_pair,
                },
            },
            "limits": dict(limits or {}),
            "delivery": {"dead_letter_topic": topics.dead},
            "observability": {"http": "127.0.0.1:0"},
        }
        config.write_text(yaml.safe_dump(settings))
        return self.enter_context(WorkerProcess(config, config.with_suffix(".log")))

    def results(self, topics: Topics) -> int:
        """How many there are."""
        end: Any = OffsetSpec
        places = {TopicPartition(topics.output, number): end.latest() for number in range(topics.partitions)}
        return sum(asked.result().offset for asked in self._admin.list_offsets(places, request_timeout=10).values())

    def wait_for_results(self, topics: Topics, count: int, *workers: WorkerProcess) -> None:
        """Until there are so many. Raises RuntimeError when a worker ends, or it takes too long."""
        self._wait(lambda: self.results(topics) >= count, workers)

    def wait_for_shares(self, group: str, shares: list[int], *workers: WorkerProcess) -> None:
        """Until ``shares`` are those of the group. Raises as ``wait_for_results``."""
        self._wait(lambda: self.shares(group) == shares, workers)

    @staticmethod
    def _wait(happened: Callable[[], bool], workers: Sequence[WorkerProcess]) -> None:
        give_up = time.monotonic() + LONGEST_SECONDS
        while not happened():
            for worker in workers:
                worker.require_running()
            if time.monotonic() > give_up:
                raise RuntimeError(f"nothing came in {LONGEST_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)

    def shares(self, group: str) -> list[int]:
        """Partitions of each member, in order of size. Empty while the broker does not know the group yet."""
        (asked,) = self._admin.describe_consumer_groups([group], request_timeout=10).values()
        try:
            members = asked.result().members
        except KafkaException:
            return []
        return sorted(len(member.assignment.topic_partitions) for member in members)


def evenly(partitions: int, members: int) -> list[int]:
    """The sizes of fair shares, in order."""
    return sorted(len(range(number, partitions, members)) for number in range(members))
