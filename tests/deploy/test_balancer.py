"""A real nginx with the shipped configuration balances gRPC calls to three model servers."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from deploy.balancer import Nginx
from stub_server import StubServer

from consumer.serving.descriptors import GET_MODEL_STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def servers() -> Iterator[list[StubServer]]:
    four = [StubServer() for _ in range(4)]
    yield four
    for server in four:
        server.stop()


@pytest.fixture
def nginx(tmp_path: Path, servers: list[StubServer]) -> Iterator[Nginx]:
    running = Nginx(tmp_path, servers[:3])
    yield running
    running.close()


def ask(port: int, calls: int, at_once: int = 4) -> list[str]:
    """The code of each of so many GetModelStatus calls over one connection."""
    request = GET_MODEL_STATUS.request()
    request.model_spec.name = "stub"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(
            GET_MODEL_STATUS.path,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GET_MODEL_STATUS.response.FromString,
        )

        def one(_: int) -> str:
            try:
                method(request, timeout=20)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(one, range(calls)))


def counted(servers: list[StubServer]) -> list[int]:
    """Make every server count the calls of ``ask``; the counts, which go on."""
    counts = [0] * len(servers)

    def counter(number: int) -> Any:
        def count(*_: Any) -> None:
            counts[number] += 1

        return count

    for number, server in enumerate(servers):
        server.before_status = counter(number)
    return counts


def test_calls_are_spread_over_all_servers(nginx: Nginx, servers: list[StubServer]) -> None:
    """Each of three gets a fair part."""
    counts = counted(servers)
    assert set(ask(nginx.port, 300)) == {"OK"}
    assert counts[3] == 0
    assert min(counts[:3]) > 50, counts


def test_one_server_less_costs_no_call_that_it_had_not_taken(nginx: Nginx, servers: list[StubServer]) -> None:
    """With one killed, all calls succeed at the other two; when it is back it gets calls again after 5 s."""
    counts = counted(servers)
    assert set(ask(nginx.port, 30)) == {"OK"}
    servers[1].stop()
    before = counts[1]
    assert set(ask(nginx.port, 200)) == {"OK"}
    assert counts[1] == before
    servers[1].start()
    deadline = time.monotonic() + 30
    while counts[1] == before and time.monotonic() < deadline:
        assert set(ask(nginx.port, 10)) == {"OK"}
    assert counts[1] > before


def test_a_server_can_be_added_while_calls_go_on(nginx: Nginx, servers: list[StubServer]) -> None:
    """A line more and a reload: no call fails, and the new one gets its part."""
    counts = counted(servers)
    with ThreadPoolExecutor(1) as beside:
        calls = beside.submit(ask, nginx.port, 2000)
        nginx.configure(servers)
        nginx.reload()
        assert set(calls.result()) == {"OK"}
    assert set(ask(nginx.port, 200)) == {"OK"}
    assert counts[3] > 20, counts


class DyingServer:
    """Takes a connection, reads a call, and is gone, as a server is that a window killed."""

    def __init__(self) -> None:
        self.taken = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"\0\0\0\4\0\0\0\0\0")  # HTTP/2's empty SETTINGS
                connection.recv(65536)
                self.taken += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def test_a_call_that_a_server_broke_off_is_not_sent_to_the_next(nginx: Nginx) -> None:
    """A window that kills a server must not be tried on all of them: only the worker decides that."""
    dying = [DyingServer() for _ in range(3)]
    nginx.configure(dying)
    nginx.reload()
    assert ask(nginx.port, 1) == ["UNAVAILABLE"]
    assert sum(server.taken for server in dying) == 1
    for server in dying:
        server.close()


def test_without_any_server_calls_are_unavailable(nginx: Nginx, servers: list[StubServer]) -> None:
    """What a worker takes for an outage."""
    for server in servers:
        server.stop()
    assert set(ask(nginx.port, 5)) == {"UNAVAILABLE"}
