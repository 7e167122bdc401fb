"""The worker's HTTP server: ``/metrics``, ``/livez``, ``/readyz``, ``/status`` and a page that shows the worker live.

One path changes something: ``POST /resume``. Any client of the port may use it, a few times a minute, but no page in a
browser. Nor can a page read anything, by naming this worker's address after its own host (DNS rebinding): the host that
a request names must be an address, ``localhost`` or a configured name (``HostCheck``).

It runs on threads of its own and gets its answers from callables of the worker; whatever a client does, or an answer
raises, ends here. A connection serves one request and is closed by force when it is ``_CONNECTION_SECONDS`` old or when
too many are open, the oldest first, so that a client that drips bytes can neither hold threads nor keep a probe from
being answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from consumer.config.names import ADDRESS
from consumer.telemetry.http_access import HostCheck, Rate

Probe = Callable[[], tuple[bool, Mapping[str, object]]]
"""Returns whether the probe succeeds, and further fields of the answer, ready for JSON."""

_CONNECTION_SECONDS = 10.0
_MAX_CONNECTIONS = 64
_RESUMES, _RESUME_SECONDS = 12, 60.0
"""So many resumes in so many seconds: enough for a person and for a script that tries again. Each lets a trial's
records through, so without a bound a loop around it would undo the pause."""

_REFUSED_LOG_SECONDS = 60.0
_BROWSERS_SEND = ("Origin", "Referer", "Sec-Fetch-Site")
"""Headers of which a browser sends at least one with every POST, and that a page cannot remove all of."""
_FORM = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""Bodies that a page of any origin may send without asking first."""

_READS, _ACTS = "GET, HEAD", "POST"
_REFUSAL = {
    _READS: "this path only reads: use GET or HEAD",
    _ACTS: "this path changes something: use POST",
}

_log = logging.getLogger(__name__)


class HttpServer(ThreadingHTTPServer):
    """Serves from construction until ``close``.

    ``address`` is ``host:port`` or ``[v6]:port``; port 0 takes a free one, ``server_port`` is the one that is bound.
    ``metrics`` gets the ``Accept`` header and returns body and content type; ``resume`` gets the input topic that the
    query names, None for all, ends its pause and returns the answer's fields; ``hosts`` are names of the worker beside
    its addresses. Raises ValueError for an address without host or port, OSError when it is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes a probe wait seconds behind a burst of connections

    def __init__(
        self,
        address: str,
        *,
        live: Probe,
        ready: Probe,
        status: Callable[[], Mapping[str, object]],
        metrics: Callable[[str], tuple[bytes, str]],
        resume: Callable[[str | None], Mapping[str, object]],
        hosts: Collection[str] = (),
    ) -> None:
        host, port = parse_address(address)
        self.names_us = HostCheck((*hosts, host))
        self.resumes = Rate(_RESUMES, _RESUME_SECONDS)
        self.refusals = Rate(1, _REFUSED_LOG_SECONDS)
        page = _page((Path(__file__).parent / "page.html").read_bytes())

        def probe(ask: Probe) -> _Answer:
            yes, detail = ask()
            return _json({"ok": yes, **detail}, HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE)

        self.routes: dict[str, _Route] = {
            "/": _Route(_READS, lambda _: page),
            "/metrics": _Route(_READS, lambda accept: _Answer(HTTPStatus.OK, *metrics(accept))),
            "/livez": _Route(_READS, lambda _: probe(live)),
            "/readyz": _Route(_READS, lambda _: probe(ready)),
            "/status": _Route(_READS, lambda _: _json(status(), HTTPStatus.OK)),
            "/resume": _Route(_ACTS, lambda query: _json(resume(_topic(query)), HTTPStatus.OK)),
        }
        self._open: dict[socket.socket, threading.Timer] = {}
        """Connections, the oldest first, each with the timer that ends it."""
        self._open_lock = threading.Lock()
        self.address_family, _, _, _, bound = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        super().__init__(bound[:2], _Handler)  # type: ignore[arg-type]  # (host, port) for both families
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, drop open connections and free the port."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._open_lock:  # the connections' threads end by themselves
            for connection in self._open:
                _hang_up(connection)

    def server_bind(self) -> None:
        # HTTPServer's own would look the host's name up, which can take seconds where DNS is broken.
        TCPServer.server_bind(self)
        self.server_port = int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)  # out of file descriptors: the connection stays readable, and accept would spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        timer = threading.Timer(_CONNECTION_SECONDS, self._expire, (request,))
        timer.daemon = True
        with self._open_lock:
            if len(self._open) >= _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                self._open.pop(oldest).cancel()
                _hang_up(oldest)
            self._open[request] = timer
        timer.start()
        super().process_request(request, client_address)

    def _expire(self, request: Any) -> None:
        with self._open_lock:  # not while its thread closes it: the descriptor could be another connection's by then
            if request in self._open:
                _hang_up(request)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            timer = self._open.pop(request, None)
        if timer is not None:
            timer.cancel()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        # A client that went away, or hung up on. The default prints a traceback.
        _log.debug("HTTP connection ended early", exc_info=True)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``. Raises ValueError with examples for anything else."""
    match = ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(
            f"HTTP address {address!r} is not host:port; write 127.0.0.1:9464, [::1]:9464, or 0.0.0.0:9464 for every "
            "interface"
        )
    return match["v6"] or match["host"], int(match["port"])


class _Route(NamedTuple):
    allow: str
    answer: Callable[[str], _Answer]
    """Called with the ``Accept`` header, that of a path which changes something with the query."""


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    content_type: str
    headers: Mapping[str, str] = {}


def _page(html: bytes) -> _Answer:
    """The page, with a policy that lets its own script and style run and nothing else."""

    def digest(element: bytes) -> str:
        found = re.search(rb"<%b>(.*?)</%b>" % (element, element), html, re.DOTALL)
        if found is None:
            raise ValueError(f"page.html has no <{element.decode()}> element")
        return "'sha256-" + base64.b64encode(hashlib.sha256(found[1]).digest()).decode() + "'"

    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {digest(b'script')}; "
        f"style-src {digest(b'style')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _Answer(HTTPStatus.OK, html, "text/html; charset=utf-8", {"Content-Security-Policy": policy})


def _json(value: object, status: HTTPStatus) -> _Answer:
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    return _Answer(status, body, "application/json; charset=utf-8")


def _topic(query: str) -> str | None:
    return dict(parse_qsl(query, keep_blank_values=True)).get("topic")


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    timeout = _CONNECTION_SECONDS
    server_version = "rexstream"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        route = self.server.routes.get(path)
        if (refusal := self._host_refusal()) is not None:
            answer = refusal
        elif route is None:
            answer = _text(HTTPStatus.NOT_FOUND, "nothing here; try /, /metrics, /livez, /readyz or /status")
        elif self.command not in route.allow.split(", "):
            answer = _text(HTTPStatus.METHOD_NOT_ALLOWED, _REFUSAL[route.allow], {"Allow": route.allow})
        elif route.allow == _ACTS and self._is_from_a_page():
            # A page from elsewhere could otherwise reach a worker on this machine.
            answer = _text(HTTPStatus.FORBIDDEN, "not for browsers: use `rexstream resume`")
        elif route.allow == _ACTS and (seconds := self.server.resumes.wait()) > 0:
            again = str(math.ceil(seconds))
            what = f"more than {_RESUMES} times in {_RESUME_SECONDS:.0f} s: try again in {again} s"
            answer = _text(HTTPStatus.TOO_MANY_REQUESTS, what, {"Retry-After": again})
        else:
            try:
                answer = route.answer(query if route.allow == _ACTS else self.headers.get("Accept", ""))
            except Exception:
                _log.exception("HTTP answer to %s failed", path)
                answer = _text(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker could not answer; its log says why")
        self._send(answer)

    def _host_refusal(self) -> _Answer | None:
        """Why the request's host is refused; None when it is not.

        Browsers always send a ``Host``. A client of HTTP/1.0 need not: health checks of some load balancers do not.
        """
        hosts = self.headers.get_all("Host") or []
        if not hosts and self.request_version != "HTTP/1.1":
            return None
        if len(hosts) != 1:
            return _text(HTTPStatus.BAD_REQUEST, "send one Host header")
        if self.server.names_us(hosts[0]):
            return None
        fix = "add it to observability.http_hosts if it is the worker's, or use an address"
        if not self.server.refusals.wait():
            _log.warning("an HTTP request for %.100s was refused: it names a host that is not known; %s", hosts[0], fix)
        return _text(HTTPStatus.FORBIDDEN, f"the Host header names a host that is not known here; {fix}")

    def _is_from_a_page(self) -> bool:
        """Whether a page in a browser sent the request, or may have."""
        form = self.headers.get_content_type() in _FORM and "Content-Type" in self.headers
        return form or any(header in self.headers for header in _BROWSERS_SEND)

    do_GET = do_HEAD = do_POST = _serve  # noqa: N815 - http.server's names
    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _serve  # noqa: N815

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
        """Log nothing: probes and scrapes would fill the log."""


def _text(status: HTTPStatus, message: str, headers: Mapping[str, str] = {}) -> _Answer:
    return _Answer(status, message.encode() + b"\n", "text/plain; charset=utf-8", headers)
