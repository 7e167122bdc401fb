"""A real Apache Kafka (KRaft) on this machine, for tests and for ``make kafka``.

Java runs the jars that tests/kafka/pom.xml pins; Maven fetches them once into ``.cache/kafka``.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from held_ports import HeldPorts
from kafka_listeners import OPEN, SECURE, server_properties, users, write_certificates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka.admin._metadata import ClusterMetadata

ROOT = Path(__file__).resolve().parents[2]
POM = ROOT / "tests/kafka/pom.xml"
JAVA_RELEASE = 17
"""The oldest Java that Apache Kafka 4 brokers run on."""
START_SECONDS = 90.0
STOP_SECONDS = 20.0

_LOGGING = """
status=error
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=OUT
"""
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
# SIGKILL, which ends a stopped process as well. It outlives the exec.
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
os.execvp(sys.argv[1], sys.argv[1:])
"""


SKIPPED = "Apache Kafka cannot run: "
"""Begins the reason of every test that is skipped for ``KafkaUnavailable``."""


class KafkaUnavailable(Exception):  # noqa: N818 - named for what it is
    """Apache Kafka cannot be had on this machine. The message says what was tried, what came of it, and the way out."""


def java_release() -> int:
    """The major version of the ``java`` on the PATH. Raises KafkaUnavailable when there is none."""
    tried = f"'java -version' (Apache Kafka needs Java {JAVA_RELEASE} or later)"
    try:
        said = subprocess.run(("java", "-version"), capture_output=True, text=True, check=True, timeout=60).stderr
        return int(said.split('"')[1].split(".")[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        raise KafkaUnavailable(f"tried {tried}: {error}; install a Java runtime") from None


def fetch_jars(pom: Path = POM) -> Path:
    """Folder with the jars of Apache Kafka that ``pom`` names, fetched once and kept in the checkout's cache.

    Raises KafkaUnavailable without Java, without Maven, or when Maven cannot fetch.
    """
    release = java_release()
    if release < JAVA_RELEASE:
        raise KafkaUnavailable(f"the java on the PATH is {release}, too old; install Java {JAVA_RELEASE} or later")
    jars = ROOT / ".cache/kafka" / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        raise KafkaUnavailable("no 'mvn' on the PATH to fetch Apache Kafka's jars with; install Maven")
    try:
        jars.parent.mkdir(parents=True, exist_ok=True)
        with jars.with_suffix(".lock").open("w") as lock:
            # Of processes that need them at once, one fetches.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.is_dir():
                _fetch(pom, jars)
    except OSError as error:
        raise KafkaUnavailable(f"{jars.parent} cannot be written ({error.strerror}); run where it can") from None
    return jars


def _fetch(pom: Path, jars: Path) -> None:
    unfinished = jars.with_name(f"{jars.name}.{os.getpid()}")
    command = [
        *("mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies"),
        *("-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"),
    ]
    try:
        fetched = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise KafkaUnavailable("tried 'mvn dependency:copy-dependencies': no answer in 10 minutes") from None
    if fetched.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise KafkaUnavailable(f"tried 'mvn dependency:copy-dependencies', which answered: {fetched.stdout[-500:]}")
    unfinished.rename(jars)


class ApacheKafka:
    """One broker, or a quorum of several, in a folder of its own. Ports and data stay the same over a restart.

    Every broker is a controller too. With three, a topic has three replicas of which two must be in sync, and one
    broker may be lost. Methods that take ``broker`` (1, 2, ...) mean all brokers without it. The processes die with
    this one; on Linux with the *thread* that called ``start``.
    """

    def __init__(
        self, jars: Path, folder: Path, brokers: int = 1, secure: bool = False, port: int | None = None
    ) -> None:
        """Format the storage; nothing runs yet.

        ``secure`` adds the listeners of kafka_listeners.SECURE, with their files in ``certificates``. ``port``: the
        first broker's PLAINTEXT port, instead of a free one.
        """
        self._jars = jars
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.certificates = folder / "certificates"
        names = SECURE if secure else OPEN
        nodes = range(1, brokers + 1)
        # Also while no broker runs: one that comes back finds its ports free.
        self._held = HeldPorts(brokers * (len(names) + 1))
        free = iter(self._held.ports)
        controllers = {node: next(free) for node in nodes}
        self._ports = {node: {name: next(free) for name in names} for node in nodes}
        if port is not None:
            self._ports[1]["PLAINTEXT"] = port
        if secure:
            self.certificates.mkdir()
            write_certificates(self.certificates)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formats = []
        for node in nodes:
            self._home(node).mkdir()
            (self._home(node) / "log4j2.properties").write_text(_LOGGING)
            self._settings(node).write_text(
                server_properties(
                    node,
                    self._ports[node],
                    controllers,
                    self._home(node) / "data",
                    self.certificates if secure else None,
                )
            )
            arguments = (f"--cluster-id={cluster_id}", "-c", str(self._settings(node)), *(users() if secure else ()))
            command = self._java(node, "kafka.tools.StorageTool", "format", *arguments)
            formats.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        for process in formats:
            said, _ = process.communicate(timeout=START_SECONDS)
            if process.returncode != 0:
                raise RuntimeError(
                    f"Apache Kafka's storage cannot be formatted: {said.decode(errors='replace')[-2000:]}"
                )

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: addresses and files, and none of the brokers' processes, nor the hold on their ports."""
        return {**self.__dict__, "_processes": {}, "_held": None}

    @property
    def bootstrap_servers(self) -> str:
        """Where plain clients connect."""
        return self.address("PLAINTEXT")

    @property
    def version(self) -> str:
        """Apache Kafka's version, such as 4.4.0."""
        return next(self._jars.glob("kafka_2.13-*.jar")).stem.removeprefix("kafka_2.13-")

    def address(self, listener: str) -> str:
        """``host:port,...`` of a listener on all brokers."""
        return ",".join(f"127.0.0.1:{ports[listener]}" for ports in self._ports.values())

    def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition; -1 while none does."""
        found: int = self._metadata(topic).topics[topic].partitions[partition].leader
        return found

    def log_of(self, topic: str, partition: int, broker: int = 1) -> Path:
        """The one segment that a broker keeps of a small partition."""
        (segment,) = (self._home(broker) / "data" / f"{topic}-{partition}").glob("*.log")
        return segment

    def start(self, broker: int | None = None) -> None:
        """Start what is not running, and return when every running broker is a member of the cluster."""
        for node in self._chosen(broker):
            if node in self._processes:
                continue
            with self._log(node).open("ab") as log:
                self._processes[node] = subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        DIE_WITH_PARENT,
                        *self._java(node, "kafka.Kafka", str(self._settings(node))),
                    ],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            ended = [node for node, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                said = self._log(ended[0] if ended else next(iter(self._processes))).read_text(errors="replace")[-3000:]
                self.kill()
                raise RuntimeError(f"Apache Kafka did not start within {START_SECONDS:.0f} s; it said:\n{said}")

    def stop(self, broker: int | None = None) -> None:
        """SIGTERM: brokers finish in order."""
        self._end(self._chosen(broker), signal.SIGTERM)

    def kill(self, broker: int | None = None) -> None:
        """SIGKILL: a crash."""
        self._end(self._chosen(broker), signal.SIGKILL)

    def pause(self, broker: int | None = None) -> None:
        """SIGSTOP: a broker that holds its connections and answers nothing."""
        self._signal(self._chosen(broker), signal.SIGSTOP)

    def resume(self, broker: int | None = None) -> None:
        """SIGCONT: the end of a pause."""
        self._signal(self._chosen(broker), signal.SIGCONT)

    def wait(self) -> int:
        """Wait for the first broker to end by itself; its exit status."""
        return self._processes[1].wait()

    def limit_producers(self, bytes_per_second: int) -> None:
        """Let every producer that connects from now on write no more than this: a slow broker.

        The clients' library has no call for it. AlterClientQuotas (request 49, version 0) for the default client id.
        """
        entity = struct.pack(">i", 1) + _text("client-id") + _text(None)
        setting = struct.pack(">i", 1) + _text("producer_byte_rate") + struct.pack(">d?", bytes_per_second, False)
        request = struct.pack(">hhi", 49, 0, 1) + _text("test") + struct.pack(">i", 1) + entity + setting + b"\0"
        with socket.create_connection(("127.0.0.1", self._ports[1]["PLAINTEXT"]), 10) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            connection.settimeout(30)
            answer = connection.recv(4096)
        # Behind length, correlation id, throttle time and the number of entries.
        code = struct.unpack_from(">h", answer, 16)[0]
        assert code == 0, f"the quota was refused with error {code}"

    def _chosen(self, broker: int | None) -> list[int]:
        return list(self._ports) if broker is None else [broker]

    def _signal(self, nodes: Iterable[int], number: signal.Signals) -> None:
        for node in nodes:
            if node in self._processes:
                self._processes[node].send_signal(number)

    def _end(self, nodes: list[int], number: signal.Signals) -> None:
        self._signal(nodes, number)
        self._signal(nodes, signal.SIGCONT)
        deadline = time.monotonic() + STOP_SECONDS
        for node in nodes:
            if (process := self._processes.pop(node, None)) is None:
                continue
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _answers(self) -> bool:
        """Whether every running broker says that every running broker is there."""
        try:
            return all(
                self._processes.keys() <= self._metadata(nodes=[node]).brokers.keys() for node in self._processes
            )
        except KafkaException:
            return False

    def _metadata(self, topic: str | None = None, nodes: Iterable[int] | None = None) -> ClusterMetadata:
        servers = [f"127.0.0.1:{self._ports[node]['PLAINTEXT']}" for node in nodes or self._processes]
        # Asks and closes: a client that stays would log every connection that it loses to a killed broker.
        admin = AdminClient({"bootstrap.servers": ",".join(servers), "log_level": 0})
        found: ClusterMetadata = admin.list_topics(topic, timeout=2.0 if topic is None else 10.0)
        return found

    def _home(self, node: int) -> Path:
        return self._folder / f"broker-{node}"

    def _settings(self, node: int) -> Path:
        return self._home(node) / "server.properties"

    def _log(self, node: int) -> Path:
        return self._home(node) / "kafka.log"

    def _java(self, node: int, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._home(node) / 'log4j2.properties'}"
        return ["java", *_JVM, logging, "-cp", f"{self._jars}/*", *arguments]


def _text(value: str | None) -> bytes:
    """A string of Kafka's protocol."""
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()
