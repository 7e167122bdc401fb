"""A real Apache Kafka (KRaft, one process) for the tests of this folder.

``$REXSTREAM_TEST_BOOTSTRAP`` names a cluster to use in its place. Otherwise Java runs the jars that tests/kafka/pom.xml
pins; Maven fetches them once into ``.cache/kafka``. Without Java or Maven the tests are skipped and say so.

Fixtures: ``apache_kafka`` (bootstrap address of one broker for the whole session), ``new_topic`` (creates a topic under
a name of its own), ``private_kafka`` (a broker for one test, which may be stopped, killed and started again).
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]
POM = ROOT / "tests/kafka/pom.xml"
START_SECONDS = 60.0
STOP_SECONDS = 20.0

SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=4
default.replication.factor=1
offsets.topic.num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=3000
group.consumer.min.session.timeout.ms=3000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""
LOGGING = """
status=error
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=OUT
"""
JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG; it outlives the exec
os.execvp(sys.argv[1], sys.argv[1:])
"""


class ApacheKafka:
    """One broker with its controller, in a folder of its own. Its ports and data stay the same over a restart."""

    def __init__(self, jars: Path, folder: Path) -> None:
        self._jars = jars
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        port, controller = _free_ports()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._settings = folder / "server.properties"
        self._settings.write_text(SETTINGS.format(port=port, controller=controller, data=folder / "data"))
        (folder / "log4j2.properties").write_text(LOGGING)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        subprocess.run(
            self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(self._settings)),
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )

    def start(self) -> None:
        """Start and return when the broker answers."""
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", DIE_WITH_PARENT, *self._java("kafka.Kafka", str(self._settings))],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        while not _answers(admin):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "kafka.log").read_text(errors="replace")[-3000:]
                self.kill()
                raise RuntimeError(f"Apache Kafka did not start within {START_SECONDS:.0f} s; it said:\n{said}")

    def stop(self) -> None:
        """SIGTERM: the broker finishes in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _java(self, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        return [*JAVA, logging, "-cp", f"{self._jars}/*", *arguments]


def _answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=0.5).brokers)
    except KafkaException:
        return False


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Folder with Apache Kafka's jars, fetched once and kept in the checkout's cache."""
    if shutil.which("java") is None:
        pytest.skip("Apache Kafka cannot run: no 'java' on the PATH (17 or later), no $REXSTREAM_TEST_BOOTSTRAP")
    jars = ROOT / ".cache/kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        pytest.skip("Apache Kafka cannot be fetched: no 'mvn' on the PATH, no $REXSTREAM_TEST_BOOTSTRAP")
    unfinished = jars.with_name(f"{jars.name}.{os.getpid()}")
    fetched = subprocess.run(
        [
            *("mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if fetched.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        pytest.skip(f"Apache Kafka cannot be fetched: mvn answered {fetched.stdout[-500:]}")
    unfinished.rename(jars)
    return jars


@pytest.fixture(scope="session")
def apache_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a real Kafka that lives as long as the test session."""
    if given := os.environ.get("REXSTREAM_TEST_BOOTSTRAP"):
        yield given
        return
    broker = ApacheKafka(request.getfixturevalue("kafka_jars"), tmp_path_factory.mktemp("kafka"))
    broker.start()
    try:
        yield broker.bootstrap_servers
    finally:
        broker.stop()


@pytest.fixture
def private_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[ApacheKafka]:
    """A started broker for one test."""
    broker = ApacheKafka(kafka_jars, tmp_path)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def new_topic(apache_kafka: str) -> Iterator[Callable[..., str]]:
    """``new_topic(name="reviews", partitions=4, **settings)`` creates a topic for this test; returns its full name."""
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    created: list[str] = []

    def create(name: str = "reviews", partitions: int = 4, **settings: str) -> str:
        topic = f"{name}-{uuid.uuid4().hex[:8]}"
        config = {key.replace("_", "."): value for key, value in settings.items()}
        admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)
        created.append(topic)
        deadline = time.monotonic() + 30
        # Asked for by name, a topic that the broker has not heard of yet would be created a second time.
        while topic not in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"topic {topic} did not appear"
        return topic

    yield create
    if created:
        for deleted in admin.delete_topics(created).values():
            deleted.result(30)
