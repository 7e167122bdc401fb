"""Broker and model servers on all CPUs but one, the contender on that one: topics, processes, what is read of them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import yaml
from apache_kafka import ApacheKafka, KafkaUnavailable
from bench.peers.cassandra_node import cassandra
from bench.peers.contenders import EXACTLY_ONCE, LOOP, PIPELINES, ROOT, WORKER, Contender
from bench.peers.pipelines.extraction import SESSION_MS
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from stub_server import write_bundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TASK: Final = "product_features"
PARTITIONS: Final = 4
STAMPED: Final = {"message.timestamp.type": "LogAppendTime"}
"""The broker's clock, when it appends: of an event and of its result, so that their difference is the latency."""
TODAYS: Final = (sys.executable, "-m", "consumer")
PR_SET_PDEATHSIG: Final = 1


class Topics(NamedTuple):
    """Of one run. The input may be shared by several."""

    source: str
    output: str
    dead: str
    group: str


class FailedError(Exception):
    """A contender ended or did not get on. The message holds the last that it said."""


class Stage:
    """Use it as a context: it starts the broker and both model servers, and ends them."""

    def __init__(self, jars: Path, folder: Path, pythons: Mapping[str, Path]) -> None:
        self._folder, self._jars, self._pythons = folder, jars, pythons
        self._every = os.sched_getaffinity(0)
        self._cpu = min(self._every)
        self._ends = ExitStack()
        self._without_cassandra: str | None = None
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            os.sched_setaffinity(0, self._every - {self._cpu})  # children inherit it
            ends.callback(os.sched_setaffinity, 0, self._every)
            write_bundle(self._folder / "bundle")
            (self._folder / "kafka").mkdir()
            broker = ApacheKafka(self._jars, self._folder / "kafka")
            ends.callback(broker.stop)
            broker.start()
            self.bootstrap = broker.bootstrap_servers
            bench = Path(__file__).parents[1]
            self.instant = self._server(ends, bench / "bare/instant_server.py")
            self.paced = self._server(ends, bench / "peers/paced_server.py")
            if "prosody" in self._pythons:
                try:
                    node = ends.enter_context(cassandra(self._folder / "cassandra", _die_with_parent))
                    self._environment["PROSODY_CASSANDRA_NODES"] = node
                except (KafkaUnavailable, RuntimeError) as error:
                    self._without_cassandra = f"it wants Apache Cassandra: {error}"
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            self._producer = Producer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "linger.ms": 20,
                    "queue.buffering.max.messages": 1_000_000,
                    "log_level": 0,
                }
            )
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def topics(self, source: str | None = None) -> Topics:
        """New ones; of a given input only the others."""
        mark = uuid.uuid4().hex[:8]
        topics = Topics(source or f"in-{mark}", f"out-{mark}", f"dead-{mark}", f"group-{mark}")
        new = [NewTopic(name, PARTITIONS, 1, config=STAMPED) for name in topics[:3] if name != source]
        for created in self._admin.create_topics(new).values():
            created.result(30)
        return topics

    def send(self, topic: str, events: Iterable[tuple[str, bytes]]) -> None:
        """Produce in turn to all partitions, and wait until all is written. Raises RuntimeError when it is not."""
        for number, (key, value) in enumerate(events):
            while True:
                try:
                    self._producer.produce(topic, value, key, partition=number % PARTITIONS)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)
        if self._producer.flush(120):
            raise RuntimeError(f"not all events could be written to {topic}")

    def send_paced(self, topic: str, events: Iterable[tuple[str, bytes]], rate: float) -> None:
        """Produce ``rate`` events a second, each at its time, whether or not anything comes out (open loop)."""
        started = time.monotonic()
        for number, (key, value) in enumerate(events):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            self._producer.produce(topic, value, key, partition=number % PARTITIONS)
            self._producer.flush(10)

    def written(self, reader: Consumer, topic: str) -> int:
        """Records that a topic holds."""
        try:
            ends = [reader.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in range(PARTITIONS)]
        except KafkaException:
            return 0  # no leader yet
        return sum(ends)

    def committed(self, topics: Topics) -> int:
        """Records before the group's committed offsets."""
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": topics.group})
        try:
            found = reader.committed([TopicPartition(topics.source, n) for n in range(PARTITIONS)], timeout=10)
            return sum(max(0, one.offset) for one in found)
        finally:
            reader.close()

    @contextmanager
    def reader(self) -> Iterator[Consumer]:
        """A consumer outside of any group."""
        settings = {"bootstrap.servers": self.bootstrap, "group.id": "bench"}
        reader = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True})
        try:
            yield reader
        finally:
            reader.close()

    def read(self, topic: str) -> list[tuple[str, int]]:
        """``event_id`` and the broker's time in milliseconds of every record that is there now."""
        found: list[tuple[str, int]] = []
        ended = 0
        with self.reader() as reader:
            reader.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
            give_up = time.monotonic() + 60
            # Ends are counted, not records: transactions leave offsets without one.
            while ended < PARTITIONS and time.monotonic() < give_up:
                for message in reader.consume(1000, 1.0):
                    if (error := message.error()) is None:
                        event_id = str(json.loads(message.value() or b"")["event_id"])
                        found.append((event_id, int(message.timestamp()[1])))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended += 1
        if ended < PARTITIONS:
            raise RuntimeError(f"read {len(found)} records of {topic} in a minute, and not to its end")
        return found

    @contextmanager
    def running(
        self, contender: Contender, topics: Topics, target: str, rexstream: Sequence[str] = TODAYS
    ) -> Iterator[Process]:
        """The contender on its CPU, in a session of its own; SIGKILL at the end, for its children too.

        ``rexstream``: the worker's program, where it is another release's.
        """
        if contender.peer == "prosody" and self._without_cassandra is not None:
            raise FailedError(self._without_cassandra)
        with (self._folder / f"{topics.group}.log").open("ab") as log:
            command = self._command(contender, topics, target, rexstream)
            process = Process(command, Path(log.name), self._cpu, self._environment)
        try:
            yield process
        finally:
            process.kill()

    def _command(self, contender: Contender, topics: Topics, target: str, rexstream: Sequence[str]) -> list[str]:
        bundle = str(self._folder / "bundle")
        if contender in (WORKER, EXACTLY_ONCE):
            mode = "exactly_once" if contender == EXACTLY_ONCE else "at_least_once"
            return [*rexstream, "run", "--config", str(self._configuration(topics, target, mode))]
        given = [self.bootstrap, topics.group, topics.source, topics.output, target, bundle, TASK]
        if contender == LOOP:
            return [sys.executable, str(Path(__file__).parents[1] / "bare/loop.py"), *given]
        assert contender.peer is not None
        pipeline = PIPELINES / f"with_{contender.peer}.py"
        return [str(self._pythons[contender.peer]), str(pipeline), *given, contender.order]

    def _configuration(self, topics: Topics, target: str, mode: str) -> Path:
        """The worker's, all default but for the mode and the session's timeout, which all contenders share."""
        file = self._folder / f"{topics.group}.yaml"
        settings = {
            "kafka": {
                "bootstrap_servers": self.bootstrap,
                "group_id": topics.group,
                "client": {"session.timeout.ms": SESSION_MS},
            },
            "routes": [{"input": topics.source, "tasks": [TASK], "output": topics.output}],
            "model": {"target": target, "name": "instant", "bundle": str(self._folder / "bundle")},
            "delivery": {"dead_letter_topic": topics.dead, "mode": mode},
            "observability": {"http": "127.0.0.1:0"},
        }
        file.write_text(yaml.safe_dump(settings))
        return file

    def _server(self, ends: ExitStack, program: Path) -> str:
        server = subprocess.Popen(
            [sys.executable, str(program), str(self._folder / "bundle")],
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
            preexec_fn=_die_with_parent,
        )
        ends.callback(server.wait)
        ends.callback(server.kill)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"{program.name} did not start")
        return address


class Process:
    """A contender: one process or several, which are one session."""

    def __init__(self, command: list[str], log: Path, cpu: int, environment: Mapping[str, str]) -> None:
        def place() -> None:
            _die_with_parent()
            os.sched_setaffinity(0, {cpu})

        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                start_new_session=True,
                env=environment,
                preexec_fn=place,
            )

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def require_running(self) -> None:
        """Raises FailedError when it ended."""
        if (code := self._process.poll()) is not None:
            raise FailedError(f"it ended with exit code {code}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self._log.read_text(errors="replace").split("\n")
        return " / ".join([line.strip() for line in lines if line.strip(" ^~")][-2:])[-300:] or "it said nothing"

    def kill(self) -> None:
        """SIGKILL to all of the session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        ticks = sum(int(fields[11]) + int(fields[12]) for fields in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory of all its processes. What several share counts for each."""
        return sum(int(fields[21]) for fields in self._stats()) * os.sysconf("SC_PAGE_SIZE")

    def _stats(self) -> list[list[str]]:
        """/proc/PID/stat of its processes, from the third field on (state)."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if int(fields[3]) == self._process.pid:
                found.append(fields)
        return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
