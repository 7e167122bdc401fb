"""``rexstream run`` while the files of its certificates, keys and passwords change."""

from __future__ import annotations

import http.client
import re
import signal
from typing import TYPE_CHECKING, Protocol

import grpc
from certificates import Authority
from stub_server import StubServer
from worker_run import Run, expected, ids, reviews, start_looking_often

if TYPE_CHECKING:
    from pathlib import Path


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


def test_new_certificates_for_the_model_server_are_used_without_a_restart(mock_broker: Broker, tmp_path: Path) -> None:
    """First the certificate, later its key: in between the old ones serve. Then the server takes only the new ones.

    The days that are left are those of what is in use, and another host's name does not let anyone read them.
    """
    old, new = Authority("Old", days=20), Authority("New", days=40)

    def write(**files: bytes) -> None:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)

    certificate, key = old.issue("worker", ("worker",), days=5)
    write(CA_FILE=old.pem + new.pem, CERTIFICATE_FILE=certificate, KEY_FILE=key)
    before, after = (
        grpc.ssl_server_credentials([authority.issue("server")[::-1]], authority.pem, require_client_auth=True)
        for authority in (old, new)
    )
    server = StubServer(before)
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    settings = {
        f"REXSTREAM_MODEL__TLS__{name}": str(tmp_path / name) for name in ("CA_FILE", "CERTIFICATE_FILE", "KEY_FILE")
    }
    settings["REXSTREAM_OBSERVABILITY__HTTP_HOSTS"] = "[rexstream.shop.svc]"
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, environment=settings)

    def days() -> dict[str, int]:
        sample = r'rexstream_certificate_expiry_days{setting="model.tls.(\w+)"} (\S+)'
        found = re.findall(sample, run.get("/metrics")[1])
        return {setting: round(float(left)) for setting, left in found}

    def said(event: str) -> bool:
        return any(line["event"].startswith(event) for line in run.lines())

    try:
        start_looking_often(run)
        pid = run.process.pid
        run.send(reviews(5))
        run.wait_for_results(10)
        assert days() == {"ca_file": 20, "certificate_file": 5}
        assert [line["setting"] for line in run.lines() if line["event"] == "a certificate expires soon"] == [
            "model.tls.certificate_file"
        ]

        certificate, key = new.issue("worker", ("worker",), days=30)
        write(CERTIFICATE_FILE=certificate)
        run.wait(lambda: said("changed credential files cannot be used yet"))
        run.send(reviews(5, 5))
        run.wait_for_results(20)
        assert days()["certificate_file"] == 5

        write(KEY_FILE=key)
        run.wait(lambda: said("credential files changed: new connections use them"))
        server.stop()
        server.credentials = after
        server.start()
        run.send(reviews(5, 10))
        run.wait_for_results(30)
        run.wait(lambda: days()["certificate_file"] == 30)

        for host, status in (("shop.example", 403), ("rexstream.shop.svc:80", 200)):
            connection = http.client.HTTPConnection(run.http.removeprefix("http://"), timeout=10)
            connection.request("GET", "/metrics", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()
        run.wait(lambda: run.lag() == 0)
        assert run.process.pid == pid
        assert run.signal(signal.SIGTERM) == 0
        assert ids(run.results()) == expected(15)
        assert run.dead_letters() == []
    finally:
        run.kill()
        server.stop()


def test_new_files_for_kafka_end_the_worker_after_a_drain(mock_broker: Broker, tmp_path: Path) -> None:
    """With an exit code of its own; its successor goes on where it stopped. Nothing is lost and nothing there twice."""
    (tmp_path / "ca.pem").write_bytes(Authority("Old").pem)
    server = StubServer()
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    client = {"session.timeout.ms": 6000, "ssl.ca.location": str(tmp_path / "ca.pem")}
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, kafka={"client": client})
    try:
        start_looking_often(run)
        run.send(reviews(5))
        run.wait_for_results(10)
        run.send(reviews(15, 5))
        (tmp_path / "ca.pem").write_bytes(Authority("New").pem)
        assert run.process.wait(60) == 5, run.lines()[-5:]
        assert any(line["event"].startswith("draining, to be started again") for line in run.lines())
        start_looking_often(run)
        run.send(reviews(10, 20))
        run.wait_for_results(60)
        run.wait(lambda: run.lag() == 0)
        assert run.process.poll() is None, "a successor reads the new file and does not end for it"
        assert run.signal(signal.SIGTERM) == 0
        assert ids(run.results()) == expected(30)
        assert run.dead_letters() == []
    finally:
        run.kill()
        server.stop()


def test_a_sigterm_while_a_change_waits_is_an_ordinary_end(mock_broker: Broker, tmp_path: Path) -> None:
    """Exit code 0: whoever stops a worker does not want it started again."""
    (tmp_path / "ca.pem").write_bytes(Authority("Old").pem)
    server = StubServer()
    topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
    client = {"session.timeout.ms": 6000, "ssl.ca.location": str(tmp_path / "ca.pem")}
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, kafka={"client": client})
    try:
        start_looking_often(run, spread=1e6)
        run.send(reviews(1))
        run.wait_for_results(2)
        (tmp_path / "ca.pem").write_bytes(Authority("New").pem)
        run.wait(lambda: any(line["event"].startswith("credential files of Kafka changed") for line in run.lines()))
        assert run.signal(signal.SIGTERM) == 0
    finally:
        run.kill()
        server.stop()


def test_a_sigterm_in_that_drain_lets_it_finish(mock_broker: Broker, tmp_path: Path) -> None:
    """It is the first signal, so nothing is cut off; and the worker is not to be started again: exit code 0."""
    (tmp_path / "ca.pem").write_bytes(Authority("Old").pem)
    server = StubServer()
    topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
    client = {"session.timeout.ms": 6000, "ssl.ca.location": str(tmp_path / "ca.pem")}
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, kafka={"client": client})
    try:
        start_looking_often(run, spread=0.1)
        run.send(reviews(1))
        run.wait_for_results(2)
        server.gate.clear()
        run.send(reviews(5, 1))
        run.wait(lambda: run.get("/status")[1]["in_flight"]["events"] == 5)
        (tmp_path / "ca.pem").write_bytes(Authority("New").pem)
        run.wait(lambda: any(line["event"].startswith("draining, to be started again") for line in run.lines()))
        run.process.send_signal(signal.SIGTERM)
        run.wait(lambda: any(line["event"] == "draining" for line in run.lines()))
        server.gate.set()
        assert run.process.wait(40) == 0
        assert ids(run.results()) == expected(6)
    finally:
        server.gate.set()
        run.kill()
        server.stop()
