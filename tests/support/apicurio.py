"""A real schema registry on this machine, for tests: Apicurio Registry, which speaks Confluent's interface.

Java runs what tests/registry/pom.xml pins; Maven fetches it once into ``.cache/registry`` (110 MB).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from apache_kafka import KafkaUnavailable, java_release

if TYPE_CHECKING:
    from certificates import Authority

ROOT = Path(__file__).resolve().parents[2]
POM = ROOT / "tests/registry/pom.xml"
JAVA_RELEASE = 17
START_SECONDS = 90.0
STOP_SECONDS = 20.0

_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
# SIGKILL, which ends a stopped process as well. It outlives the exec.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
os.execvp(sys.argv[1], sys.argv[1:])
"""


class RegistryAbsent(Exception):  # noqa: N818 - named for what it is
    """No real registry can be had on this machine. The message says what was tried and what came of it."""


def fetch_apicurio() -> Path:
    """Folder with Apicurio Registry, fetched once. Raises RegistryAbsent without Java, Maven or a network."""
    try:
        release = java_release()
    except KafkaUnavailable as error:
        raise RegistryAbsent(str(error)) from None
    if release < JAVA_RELEASE:
        raise RegistryAbsent(f"the java on the PATH is {release}, too old; install Java {JAVA_RELEASE} or later")
    folder = ROOT / ".cache/registry" / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise RegistryAbsent("no 'mvn' on the PATH to fetch Apicurio Registry with; install Maven")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy", f"-DoutputDirectory={unfinished}"]
    try:
        fetched = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        failed = fetched.stdout[-500:] if fetched.returncode != 0 else None
    except subprocess.TimeoutExpired:
        failed = "no answer in 10 minutes"
    if failed is not None:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RegistryAbsent(f"tried 'mvn dependency:copy', which answered: {failed}")
    (archive,) = unfinished.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(unfinished, filter="data")
    archive.unlink()
    try:
        unfinished.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


class Apicurio:
    """One registry with its data in a folder of its own. Its port and its data stay the same over a restart."""

    def __init__(self, installed: Path, folder: Path, authority: Authority | None = None) -> None:
        """Nothing runs yet. With ``authority`` it speaks https only, with a certificate from there."""
        self._installed = installed
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if authority is None:
            self._address = f"http://127.0.0.1:{port}"
            self._listener = {"quarkus.http.port": str(port)}
            self._context = None
        else:
            self._address = f"https://127.0.0.1:{port}"
            certificate, key = authority.issue("registry")
            (folder / "certificate.pem").write_bytes(certificate)
            (folder / "key.pem").write_bytes(key)
            self._listener = {
                "quarkus.http.ssl-port": str(port),
                "quarkus.http.insecure-requests": "disabled",
                "quarkus.http.ssl.certificate.files": str(folder / "certificate.pem"),
                "quarkus.http.ssl.certificate.key-files": str(folder / "key.pem"),
            }
            self._context = ssl.create_default_context(cadata=authority.pem.decode())
        # A proxy that the environment names cannot reach this machine's loopback.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )

    @property
    def url(self) -> str:
        """Confluent's interface."""
        return f"{self._address}/apis/ccompat/v7"

    @property
    def version(self) -> str:
        """Apicurio Registry's version, such as 3.0.9."""
        return self._jar().stem.removeprefix("apicurio-registry-app-").removesuffix("-runner")

    def start(self) -> None:
        """Start, and return when it answers."""
        settings = {
            "quarkus.http.host": "127.0.0.1",
            **self._listener,
            "quarkus.http.access-log.enabled": "false",
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.url": f"jdbc:h2:file:{self._folder / 'data'};WRITE_DELAY=0",
        }
        options = [f"-D{key}={value}" for key, value in settings.items()]
        with (self._folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIE_WITH_PARENT, "java", *_JVM, *options, "-jar", str(self._jar())],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "registry.log").read_text(errors="replace")[-3000:]
                self.kill()
                raise RuntimeError(f"Apicurio Registry did not start within {START_SECONDS:.0f} s; it said:\n{said}")
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM: it finishes in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: the end of a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with self._opener.open(f"{self.url}/subjects", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _jar(self) -> Path:
        return next(self._installed.glob("apicurio-registry-app-*-runner.jar"))
