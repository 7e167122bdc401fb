"""What asks a worker on this machine goes there directly, whatever proxy the environment names."""

from __future__ import annotations

import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from worker_run import Run

from consumer.local import demo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that refuses every connection: its port is bound and nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        # urllib reads the environment once, when the process first opens an address.
        monkeypatch.setattr(urllib.request, "_opener", None)
        yield


def asked_by_a_test(url: str) -> object:
    run = Run.__new__(Run)
    run.http = url
    return run.get("/status")


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize(("ask", "answer"), [(demo._is_ready, True), (demo._get, "{}"), (asked_by_a_test, (200, {}))])
def test_a_worker_on_loopback_is_seen_past_a_proxy(ask: Callable[[str], object], answer: object, url: str) -> None:
    """A proxy does not know our loopback; asking it would leave the demo waiting for a worker that is ready."""
    assert ask(url) == answer
