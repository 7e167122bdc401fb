"""``rexstream status`` with workers that are named. The members of a real group are in integration/apache."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from consumer.cli import cli
from consumer.local.broker import EmbeddedBroker
from consumer.telemetry.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

STATUS = {
    "service": "rexstream",
    "version": "0.1.0",
    "worker": "worker-1",
    "state": "consuming",
    "ready": True,
    "assignment": [{"topic": "reviews.raw", "partition": 0, "lag": 5}],
    "rates": {"events_per_second": 2.0},
    "model": {"name": "m", "version": "1", "endpoints": [{"address": "s:8500", "state": "ok", "in_flight": 0}]},
}


@pytest.fixture
def address() -> Iterator[str]:
    """A worker that is well."""
    server = HttpServer(
        "127.0.0.1:0",
        live=lambda: (True, {}),
        ready=lambda: (True, {}),
        status=lambda: STATUS,
        metrics=lambda _: (b"", "text/plain"),
        resume=lambda _: {},
    )
    yield f"127.0.0.1:{server.server_port}"
    server.close()


def status(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments])


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_named_workers_are_asked_without_kafka(address: str) -> None:
    """Lag is then what they say themselves; exit code 0 when all is well."""
    found = status("--http", address)
    assert found.exit_code == 0, found.output
    assert "2.0 events/s, lag 5" in found.stdout
    assert "All well." in found.stdout


def test_one_that_is_not_reached_is_named_and_makes_exit_code_1(address: str) -> None:
    """The others are shown; JSON has the same."""
    gone = closed_port()
    found = status("--http", address, "--http", gone)
    assert found.exit_code == 1
    assert "worker-1" in found.stdout
    assert f"{gone} was not reached" in found.stdout
    shown = json.loads(status("--http", address, "--http", gone, "--json").stdout)
    assert [each["name"] for each in shown["workers"]] == ["worker-1"]
    assert [each["name"] for each in shown["unreached"]] == [gone]
    assert shown["well"] is False


def test_nothing_that_answers_is_exit_code_3() -> None:
    """Neither a worker nor Kafka."""
    assert status("--http", closed_port()).exit_code == 3
    found = status("-b", closed_port(), "--timeout", "0.5")
    assert found.exit_code == 3
    assert "--http HOST:PORT" in found.stderr


def test_on_the_embedded_broker_lag_is_the_brokers_and_the_worker_the_configured_one(address: str) -> None:
    """It lists no members, which is said."""
    with EmbeddedBroker(topics={"reviews.raw": 3}) as broker:
        found = status("-b", broker.bootstrap_servers, "--set", f"observability.http={address}", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["topics"]["reviews.raw"]["partitions"] == 3
    assert "lists no members" in found.stderr


def test_watch_looks_again_until_ctrl_c(address: str) -> None:
    """A line of JSON each time; exit code 130, without a traceback."""
    command = [sys.executable, "-m", "consumer", "status", "--http", address, "--watch", "--interval", "0.5", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["well"] is True
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
