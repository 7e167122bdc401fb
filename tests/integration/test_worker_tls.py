"""``rexstream run`` against a model server that speaks TLS and asks for a client certificate."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import grpc
from certificates import Authority
from stub_server import StubServer, write_bundle
from worker_run import Run, expected, ids, reviews

if TYPE_CHECKING:
    from pathlib import Path


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


def test_a_server_that_is_no_longer_trusted_is_an_outage(mock_broker: Broker, tmp_path: Path) -> None:
    """Mutual TLS works; a server that comes back with another authority's certificate stops the work.

    The reason is in the log, and no event becomes a dead letter; when the right certificate is back, all become
    results.
    """
    ours, theirs = Authority("Ours"), Authority("Theirs")
    client = ours.issue("worker", ("worker",))
    files = {"CA_FILE": ours.pem, "CERTIFICATE_FILE": client[0], "KEY_FILE": client[1]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    right, wrong = (
        grpc.ssl_server_credentials([authority.issue("server")[::-1]], ours.pem, require_client_auth=True)
        for authority in (ours, theirs)
    )
    server = StubServer(right)
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    settings = {f"REXSTREAM_MODEL__TLS__{name}": str(tmp_path / name) for name in files}
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, environment=settings)
    try:
        run.start()
        run.send(reviews(10))
        run.wait_for_results(20)

        server.stop()
        server.credentials = wrong
        server.start()
        run.send(reviews(20, 10))

        def reasons() -> list[str]:
            return [line["reason"] for line in run.lines() if "reason" in line]

        run.wait(lambda: any("the server's certificate is not trusted" in reason for reason in reasons()))
        run.wait(lambda: run.get("/status")[1]["state"] == "paused")
        assert run.dead_letters() == []
        assert ids(run.results()) == expected(10)

        server.stop()
        server.credentials = right
        server.start()
        run.wait_for_results(60)
        run.wait(lambda: run.lag() == 0)
        assert run.signal(signal.SIGTERM) == 0
        assert set(ids(run.results())) == set(expected(30))
        assert run.dead_letters() == []
    finally:
        run.kill()
        server.stop()


def test_a_file_that_cannot_be_used_ends_the_worker_at_once(tmp_path: Path) -> None:
    """Exit code 2 with key, file and reason, before anything is connected to."""
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    bundle = write_bundle(tmp_path / "bundle")
    flags = ["--set", f"model.bundle={bundle}", "--set", f"model.tls.ca_file={tmp_path / 'ca.pem'}"]
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "run", *flags], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"model.tls.ca_file {tmp_path / 'ca.pem'} has no certificate" in done.stderr
    assert "Traceback" not in done.stderr
