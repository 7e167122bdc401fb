"""Many workers asked at the same time."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from consumer.cli.worker_requests import HERE, Address, ask

if TYPE_CHECKING:
    from collections.abc import Iterator


class Answering(ThreadingHTTPServer):
    """Answers with one body; ``most`` is the highest number of requests that it had at the same time."""

    def __init__(self, body: bytes, together: int = 1) -> None:
        self.together = threading.Barrier(together)
        self.body = body
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.server_port)

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.server.together.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(params=["header", "body"])
def dripping(request: pytest.FixtureRequest) -> Iterator[Address]:
    """Sends a byte of an endless header or body now and then, so that no wait for the next one is long."""
    end = b"X: " if request.param == "header" else b"Connection: close\r\n\r\n{"
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\n" + end)
                for _ in range(2000):  # 40 s, so that a client that waits for its end is seen to
                    if ended.wait(0.02):
                        return
                    try:
                        client.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        yield Address("127.0.0.1", server.getsockname()[1])
        ended.set()
        thread.join()


def test_they_are_asked_at_the_same_time() -> None:
    """Each of these answers only when three are asked."""
    barrier = threading.Barrier(3)
    with ExitStack() as stack:
        servers = [stack.enter_context(Answering(b'{"n": 1}')) for _ in range(3)]
        for server in servers:
            server.together = barrier
        found = ask([each.address for each in servers], "GET", "/status", time.monotonic() + 30)
    assert [reply.content for reply in found.values()] == [{"n": 1}] * 3


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b"[" * 100_000, b""])
def test_what_is_no_object_is_no_workers(body: bytes) -> None:
    with Answering(body) as server:
        (reply,) = ask([server.address], "GET", "/status", time.monotonic() + 30).values()
    assert (reply.content, reply.answered) == (None, True)
    assert "no worker" in reply.error


def test_a_hundred_that_hang_end_at_the_deadline(dripping: Address) -> None:
    """Silence and a drip of bytes cost one deadline together, and the one that answers is heard."""
    with ExitStack() as stack, Answering(b'{"n": 1}') as server:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(99)]
        addresses = [Address("127.0.0.1", each.getsockname()[1]) for each in silent]
        began = time.monotonic()
        found = ask([*addresses, dripping, server.address], "GET", "/status", began + 1)
        # Far from 100 deadlines, and from forever.
        assert time.monotonic() - began < 30
    assert found.pop(server.address).content == {"n": 1}
    assert {reply.error for reply in found.values()} == {"no answer in time"}
    assert not any(reply.answered for reply in found.values())


def test_a_port_that_nobody_has_is_said_in_the_systems_words() -> None:
    """As short as that."""
    (reply,) = ask([Address("127.0.0.1", 1)], "GET", "/status", time.monotonic() + 30).values()
    assert reply.error == "Connection refused"


def test_either_loopback_is_here() -> None:
    """Also where the name ``localhost`` stands for the IPv4 one only, as in many containers."""
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}')

        threading.Thread(target=answer, daemon=True).start()
        address = Address(HERE, port)
        (reply,) = ask([address], "GET", "/status", time.monotonic() + 30).values()
    assert reply.content == {"a": 1}, reply
