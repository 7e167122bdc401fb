"""``rexstream run`` as a process on topics of its own, and what there is to see of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from contracts import check_dead_letter, check_result
from stub_server import StubServer, write_bundle

from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

TEXTS = ["外壳结实，颜色正", "声音小了点", "发货慢，包装破了", "第二次买，依然满意", "尺码偏大，料子软"]


# A proxy that the environment names cannot reach this machine's loopback.
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


CHECKED = 100
"""Results and dead letters of each run that are compared with their schemas, a millisecond each."""


class Run:
    """A worker process on topics of its own."""

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str],
        server: StubServer,
        folder: Path,
        *,
        routes: Sequence[Mapping[str, Any]] = (),
        registry: str | None = None,
        kafka: Mapping[str, Any] | None = None,
        delivery: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``topics``: input, output, dead letters. ``routes`` take the place of the one from input to output.

        ``kafka`` and ``delivery``: keys of those sections; this class itself goes by ``bootstrap``.
        """
        self.bootstrap, (self.input, self.output, self.dead) = bootstrap, topics
        self.group = f"group-{self.input}"
        self.routes = routes
        self._log = folder / "worker.log"
        self.config_file = folder / "config.yaml"
        self.config_file.write_text(
            yaml.safe_dump(
                {
                    "kafka": {
                        "bootstrap_servers": bootstrap,
                        "group_id": self.group,
                        "client": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
                        "registry": {} if registry is None else {"url": registry},
                        **(kafka or {}),
                    },
                    "routes": [dict(route) for route in routes]
                    or [{"input": self.input, "tasks": ["sentiment", "product_features"], "output": self.output}],
                    "model": {"target": server.target, "name": "stub", "bundle": str(write_bundle(folder / "bundle"))},
                    "delivery": {
                        "dead_letter_topic": self.dead,
                        "commit_interval_ms": 100,
                        "grace_seconds": 20.0,
                        **(delivery or {}),
                    },
                    "observability": {"http": "127.0.0.1:0"},
                }
            )
        )
        self.environment = {**os.environ, "REXSTREAM_TEST_RUN": "1", **(environment or {})}
        self.program = [sys.executable, "-m", "consumer"]
        self._checked: set[tuple[Any, ...]] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        before = len(self.lines())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config_file)],
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        self.wait(lambda: any(line["event"] == "http" for line in self.lines()[before:]))
        address = next(line["address"] for line in reversed(self.lines()) if line["event"] == "http")
        self.http = f"http://{address}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The worker that runs now."""
        assert self._process is not None
        return self._process

    def signal(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)

    def suspend(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM, unless it ended by itself; the exit code."""
        assert self._process is not None
        return self._process.poll() or self.signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self, until: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            if time.monotonic() >= deadline:
                self.process.send_signal(signal.SIGUSR1)  # it logs where it stands
                time.sleep(1)
                raise AssertionError(self._log.read_text()[-20_000:])
            time.sleep(0.05)

    def lines(self) -> list[dict[str, Any]]:
        """Every line of the log, which must all be JSON."""
        if not self._log.exists():
            return []
        complete = self._log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with _LOOPBACK.open(self.http + path, timeout=30) as response:
                status, body = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read().decode()
        return status, body if path == "/metrics" else json.loads(body)

    def send(self, values: Sequence[tuple[str, bytes | None]], topic: str | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        failed: list[object] = []
        for key, value in values:
            producer.produce(topic or self.input, value, key, on_delivery=lambda e, _: failed.append(e) if e else None)
        assert producer.flush(30) == 0
        assert failed == []

    def results(self, topic: str | None = None) -> list[dict[str, Any]]:
        """Those of the result topic, or of this one. The first hundred that are seen are what ``schemas/json`` says."""
        messages = list(read_to_end(self.bootstrap, topic or self.output))
        for message in self._not_checked(messages):
            check_result(message.value() or b"", headers_of(message))
        return [json.loads(message.value() or b"") for message in messages]

    def dead_letters(self) -> list[Message]:
        """Those that there are; of the first hundred that are seen the headers are what ``schemas/json`` says."""
        messages = list(read_to_end(self.bootstrap, self.dead))
        for message in self._not_checked(messages):
            check_dead_letter(headers_of(message))
        return messages

    def _not_checked(self, messages: Sequence[Message]) -> Iterator[Message]:
        for message in messages:
            place = (message.topic(), message.partition(), message.offset())
            if message.value() is not None and len(self._checked) < CHECKED and place not in self._checked:
                self._checked.add(place)
                yield message

    def wait_for_results(self, count: int) -> None:
        self.wait(lambda: len({(r["event_id"], r["task"]) for r in self.results()}) >= count)

    def lag(self, topic: str | None = None) -> int:
        """Records of the input topic, or of this one, behind the group's committed offsets."""
        topic = topic or self.input
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        try:
            partitions = [
                TopicPartition(topic, number)
                for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ]
            total = 0
            for committed in consumer.committed(partitions, timeout=10):
                low, high = consumer.get_watermark_offsets(committed, timeout=10)
                total += high - max(committed.offset, low)
            return total
        finally:
            consumer.close()


_LOOKING_OFTEN = """
import sys
import consumer.worker.credentials as credentials
credentials.LOOK_SECONDS, credentials.SPREAD_SECONDS = 0.2, float(sys.argv.pop(1))
from consumer.cli import main
main()
"""


def start_looking_often(run: Run, spread: float = 0.5) -> None:
    """Start a worker that looks at its credential files all the time and ends for Kafka's within ``spread`` seconds."""
    run.program = [sys.executable, "-c", _LOOKING_OFTEN, str(spread)]
    run.start()


def reviews(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [
        (f"k{i % 7}", json.dumps({"event_id": f"e{i}", "text": f"{TEXTS[i % len(TEXTS)]}{i}"}).encode())
        for i in range(start, start + count)
    ]


def ids(results: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((result["event_id"], result["task"]) for result in results)


def expected(count: int) -> list[tuple[str, str]]:
    return sorted((f"e{i}", task) for i in range(count) for task in ("product_features", "sentiment"))
