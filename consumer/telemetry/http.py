"""The worker's HTTP side: ``/metrics``, ``/livez``, ``/readyz``, ``/status`` and a page that shows the worker live.

One path changes something: ``POST /resume``. Whoever reaches the port may use it, but no page in a browser.

It runs on threads of its own and asks the worker through callables; whatever a client does, or an answer raises, ends
here. A connection serves one request and is closed by force when it is ``_CONNECTION_SECONDS`` old or when too many are
open, the oldest first, so that a client that drips bytes can neither hold threads nor keep a probe from being answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, ClassVar

from consumer.config.names import ADDRESS

Probe = Callable[[], tuple[bool, Mapping[str, object]]]
"""Whether the answer is yes, and what else to say, ready for JSON."""

_CONNECTION_SECONDS = 10.0
_MAX_CONNECTIONS = 64

_log = logging.getLogger(__name__)


class HttpServer:
    """Serves from construction until ``close``.

    ``address`` is ``host:port`` or ``[v6]:port``; port 0 takes a free one. ``metrics`` gets the ``Accept`` header and
    returns body and content type; ``resume`` does what it is called for and says what it did. Raises ValueError for an
    address without host or port, OSError when it is taken.
    """

    def __init__(
        self,
        address: str,
        *,
        live: Probe,
        ready: Probe,
        status: Callable[[], Mapping[str, object]],
        metrics: Callable[[str], tuple[bytes, str]],
        resume: Callable[[], Mapping[str, object]],
    ) -> None:
        host, port = parse_address(address)
        page = _Page((Path(__file__).parent / "page.html").read_bytes())

        def probe(ask: Probe) -> _Answer:
            yes, detail = ask()
            return _json({"ok": yes, **detail}, HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE)

        def exposition(accept: str) -> _Answer:
            body, content_type = metrics(accept)
            return _Answer(HTTPStatus.OK, body, content_type)

        routes: dict[str, Callable[[str], _Answer]] = {
            "/": lambda _: page.answer,
            "/metrics": exposition,
            "/livez": lambda _: probe(live),
            "/readyz": lambda _: probe(ready),
            "/status": lambda _: _json(status(), HTTPStatus.OK),
        }
        actions: dict[str, Callable[[str], _Answer]] = {"/resume": lambda _: _json(resume(), HTTPStatus.OK)}
        self._server = _Server(host, port, routes, actions)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """Address of the page."""
        host = self._server.server_name
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    def close(self) -> None:
        """Stop accepting, drop open connections and free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.drop_connections(older_than=0.0)


def parse_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``. Raises ValueError that says what is missing."""
    match = ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(
            f"HTTP address {address!r} is not host:port; write 127.0.0.1:9464, [::1]:9464, or 0.0.0.0:9464 for every "
            "interface"
        )
    return match["v6"] or match["host"], int(match["port"])


class _Answer:
    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: HTTPStatus, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}


class _Page:
    """The page, with a policy that lets its own script and style run and nothing else."""

    def __init__(self, html: bytes) -> None:
        def digest(element: bytes) -> str:
            found = re.search(rb"<%b>(.*?)</%b>" % (element, element), html, re.DOTALL)
            if found is None:
                raise ValueError(f"page.html has no <{element.decode()}> element")
            return "'sha256-" + base64.b64encode(hashlib.sha256(found[1]).digest()).decode() + "'"

        policy = (
            f"default-src 'none'; connect-src 'self'; img-src data:; script-src {digest(b'script')}; "
            f"style-src {digest(b'style')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.answer = _Answer(HTTPStatus.OK, html, "text/html; charset=utf-8", {"Content-Security-Policy": policy})


def _json(value: object, status: HTTPStatus) -> _Answer:
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    return _Answer(status, body, "application/json; charset=utf-8")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes a probe wait seconds behind a burst of connections

    def __init__(
        self,
        host: str,
        port: int,
        routes: dict[str, Callable[[str], _Answer]],
        actions: dict[str, Callable[[str], _Answer]],
    ) -> None:
        family, _, _, _, bound = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self.routes = routes
        self.actions = actions
        self._open_since: dict[socket.socket, float] = {}
        self._open_lock = threading.Lock()
        super().__init__(bound[:2], _Handler)  # type: ignore[arg-type]  # (host, port) for both families

    def server_bind(self) -> None:
        # HTTPServer's own would look the host's name up, which can take seconds where DNS is broken.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)  # out of file descriptors: the connection stays readable, and accept would spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            if len(self._open_since) >= _MAX_CONNECTIONS:
                oldest = min(self._open_since, key=self._open_since.__getitem__)
                del self._open_since[oldest]
                _hang_up(oldest)
            self._open_since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open_since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        self.drop_connections(older_than=_CONNECTION_SECONDS)

    def drop_connections(self, older_than: float) -> None:
        """Shut connections down that have been open for ``older_than`` seconds; their threads end by themselves."""
        now = time.monotonic()
        with self._open_lock:
            for connection, since in self._open_since.items():
                if now - since >= older_than:
                    _hang_up(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        # A client that went away, or hung up on. The default prints a traceback.
        _log.debug("HTTP connection ended early", exc_info=True)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CONNECTION_SECONDS
    server_version = "rexstream"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"
    _reads: ClassVar[dict[str, str]] = {"Allow": "GET, HEAD"}
    _acts: ClassVar[dict[str, str]] = {"Allow": "POST"}

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0]

    def do_GET(self) -> None:
        route = self.server.routes.get(self._path)
        if route is None:
            self._refuse()
        else:
            self._answer(route)

    do_HEAD = do_GET  # noqa: N815 - http.server's names

    def do_POST(self) -> None:
        action = self.server.actions.get(self._path)
        if action is None:
            self._refuse()
        elif "Origin" in self.headers:
            # Browsers send it with every POST: a page from elsewhere could otherwise reach a worker on this machine.
            self._send(_text(HTTPStatus.FORBIDDEN, "not for browsers: use `rexstream resume`"))
        else:
            self._answer(action)

    def _refuse(self) -> None:
        if self._path in self.server.routes:
            answer = _text(HTTPStatus.METHOD_NOT_ALLOWED, "this path only reads: use GET or HEAD", self._reads)
        elif self._path in self.server.actions:
            answer = _text(HTTPStatus.METHOD_NOT_ALLOWED, "this path changes something: use POST", self._acts)
        else:
            answer = _text(HTTPStatus.NOT_FOUND, "nothing here; try /, /metrics, /livez, /readyz or /status")
        self._send(answer)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def _answer(self, route: Callable[[str], _Answer]) -> None:
        try:
            answer = route(self.headers.get("Accept", ""))
        except Exception:
            _log.exception("HTTP answer to %s failed", self._path)
            answer = _text(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker could not answer; its log says why")
        self._send(answer)

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")  # one request a connection; a body that was sent along is not read
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Say nothing: probes and scrapes would fill the log."""


def _text(status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, message.encode() + b"\n", "text/plain; charset=utf-8", headers)
