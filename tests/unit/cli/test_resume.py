"""``rexstream resume`` against workers' HTTP sides. The members of a real group are in integration/apache."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from consumer.cli import cli
from consumer.cli.group_workers import Target
from consumer.cli.resume import tell
from consumer.cli.worker_requests import Address
from consumer.kafka.tools.group import Member
from consumer.local.broker import EmbeddedBroker
from consumer.telemetry.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

ANSWER = {"resumed": ["flood"], "state": "trial", "message": "a trial of 20 events"}


def serving() -> HttpServer:
    return HttpServer(
        "127.0.0.1:0",
        live=lambda: (True, {}),
        ready=lambda: (True, {}),
        status=dict,
        metrics=lambda _: (b"", "text/plain"),
        resume=lambda topic: {**ANSWER, "topics": [topic or "all"]},
    )


@pytest.fixture
def server() -> Iterator[HttpServer]:
    started = serving()
    yield started
    started.close()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def resume(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["resume", *arguments])


def test_it_says_what_the_worker_did(server: HttpServer) -> None:
    """A sentence, or with --json the answer and who gave it; exit code 0."""
    address = f"127.0.0.1:{server.server_port}"
    found = resume("--http", address)
    assert (found.exit_code, found.stdout) == (0, "a trial of 20 events\n")
    found = resume("--http", address, "--json")
    who = {"worker": address, "address": address}
    assert (found.exit_code, json.loads(found.stdout)) == (0, {**who, **ANSWER, "topics": ["all"]})
    found = resume("--http", address, "--topic", "shop a&b", "--json")
    assert json.loads(found.stdout)["topics"] == ["shop a&b"]


def test_an_answer_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything may answer, with half a surrogate pair too."""
    monkeypatch.setitem(ANSWER, "message", "\x1b[2J\ud800 done")
    odd = serving()
    try:
        found = resume("--http", f"127.0.0.1:{odd.server_port}")
        assert (found.exit_code, found.stdout) == (0, "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER} done\n")
        found = resume("--http", f"127.0.0.1:{odd.server_port}", "--json")
        assert (found.exit_code, json.loads(found.stdout)["message"]) == (0, "\x1b[2J\ud800 done")
    finally:
        odd.close()


def test_on_the_embedded_broker_the_configured_address_is_asked(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists no members, which is said; a proxy of the environment stays out of it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with EmbeddedBroker() as broker:
        local = ["-b", broker.bootstrap_servers]
        found = resume(*local, "--set", f"observability.http=0.0.0.0:{server.server_port}")
        assert found.exit_code == 0, found.output
        assert "lists no members" in found.stderr
        for http in ("", "127.0.0.1:0"):
            found = resume(*local, "--set", f"observability.http={http}")
            assert found.exit_code == 2
            assert "--http HOST:PORT" in found.stderr


def test_without_kafka_the_way_out_is_named() -> None:
    """Exit code 3; workers that are named are asked without it."""
    found = resume("-b", closed_port(), "--timeout", "0.5")
    assert found.exit_code == 3
    assert "--http HOST:PORT" in found.stderr


def test_of_several_workers_each_is_told_and_who_was_not_is_named(server: HttpServer) -> None:
    """Exit code 0 when all were, 1 when some were not, 3 when nothing answers."""
    other, gone = serving(), closed_port()
    both = [f"--http=127.0.0.1:{each.server_port}" for each in (server, other)]
    try:
        found = resume(*both)
        assert found.exit_code == 0
        assert found.stdout.splitlines() == [f"{each.removeprefix('--http=')}  a trial of 20 events" for each in both]
        found = resume(*both, "--http", gone)
        assert found.exit_code == 1
        assert len(found.stdout.splitlines()) == 2
        assert f"not reached  {gone}: Connection refused" in found.stderr
        assert f"1 of 3 workers were not resumed: {gone}" in found.stderr
        found = resume(*both, "--http", gone, "--json")
        lines = [json.loads(line) for line in found.stdout.splitlines()]
        assert [line.get("resumed") for line in lines] == [["flood"], ["flood"], None]
        assert "refused" in lines[2]["unreached"]
    finally:
        other.close()
    assert resume("--http", gone, "--http", closed_port()).exit_code == 3


def test_a_worker_that_does_not_answer_is_unreachable() -> None:
    """Exit code 3, with the address; silence is no answer either."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = resume("--http", address, "--timeout", "0.2")
        assert found.exit_code == 3
    assert address in found.stderr
    assert resume("--http", address).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--http", "worker-2"], "is not host:port"),
        (["--http", "127.0.0.1:0"], "any free port"),
    ],
)
def test_an_address_that_leads_nowhere_is_bad_usage(arguments: list[str], words: str) -> None:
    """Exit code 2 and what to give instead."""
    found = resume(*arguments)
    assert found.exit_code == 2
    assert words in found.stderr


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"resumed": 1, "message": ""}', b"\xff"])
def test_something_else_at_the_address_is_said(body: bytes) -> None:
    """Exit code 1: it answered, and is no worker."""

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        found = resume("--http", f"127.0.0.1:{other.server_port}")
        thread.join()
    assert found.exit_code == 1
    assert "is no worker" in found.stderr


def test_a_worker_known_by_name_is_reached_without_naming_it(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compose service's name, say: the worker hears the address that it stands for, which it always takes."""
    name, port = "worker-2.example", server.server_port
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: real({name: "127.0.0.1"}.get(host, host), *rest))
    assert resume("--http", f"{name}:{port}").exit_code == 0


def test_a_member_that_hangs_leaves_the_others_time_to_be_resumed() -> None:
    """A member is asked whether it is a worker before it is told anything; what is none is told nothing."""
    posts: list[str] = []

    class Worker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"service": "rexstream", "worker": "w"} if self.path == "/status" else {})

        def do_POST(self) -> None:
            posts.append(self.path)
            self._send(ANSWER)

        def _send(self, answer: object) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Other(Worker):
        def do_GET(self) -> None:
            self._send({"service": "orders"})

    with (
        HTTPServer(("127.0.0.1", 0), Worker) as worker,
        HTTPServer(("127.0.0.1", 0), Other) as other,
        socket.create_server(("127.0.0.1", 0)) as hanging,
    ):
        for each in (worker, other):
            threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        targets = [
            Target(name, Address("127.0.0.1", port), "", Member(name, "reviews", "127.0.0.1", None, ()))
            for name, port in (
                ("a", worker.server_port),
                ("b", other.server_port),
                ("c", hanging.getsockname()[1]),
            )
        ]
        told = tell(targets, None, 4.0)
        for each in (worker, other):
            each.shutdown()
    assert [(each.name, each.answer) for each in told] == [("w", ANSWER), ("b", None), ("c", None)]
    assert posts == ["/resume"]
    assert "no answer in time" in told[2].why


def test_too_many_are_told_when_to_come_back(server: HttpServer) -> None:
    """Exit code 1, and the worker's own words."""
    found = [resume("--http", f"127.0.0.1:{server.server_port}") for _ in range(13)]
    assert [each.exit_code for each in found] == [0] * 12 + [1]
    assert "try again in" in found[-1].stderr
