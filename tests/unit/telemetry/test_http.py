from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import threading
import time
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from consumer.telemetry import http as telemetry_http
from consumer.telemetry.http import HttpServer, parse_address

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class Worker:
    """What the server asks; a test changes the answers."""

    def __init__(self) -> None:
        self.is_live: tuple[bool, Mapping[str, object]] = (True, {"threads": ["poll", "release", "loop"]})
        self.is_ready: tuple[bool, Mapping[str, object]] = (False, {"reasons": ["the model is not AVAILABLE"]})
        self.now: Any = {"worker": "w-1", "dead_letters": {"<b>": 1}}
        self.accepts: list[str] = []
        self.resumed: list[str | None] = []

    def status(self) -> Any:
        return self.now

    def metrics(self, accept: str) -> tuple[bytes, str]:
        self.accepts.append(accept)
        return b"# HELP a b\n", "text/plain; version=0.0.4"

    def resume(self, topic: str | None) -> dict[str, object]:
        self.resumed.append(topic)
        return {"resumed": ["flood"]}

    def start(self, address: str = "127.0.0.1:0", hosts: Collection[str] = ()) -> HttpServer:
        return HttpServer(
            address,
            live=lambda: self.is_live,
            ready=lambda: self.is_ready,
            status=lambda: self.status(),
            metrics=self.metrics,
            resume=self.resume,
            hosts=hosts,
        )


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def server(worker: Worker) -> Iterator[HttpServer]:
    started = worker.start()
    yield started
    started.close()


def ask(
    server: HttpServer, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers=dict(headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_probes_answer_200_for_yes_and_503_for_no_with_the_reason(server: HttpServer, worker: Worker) -> None:
    """An orchestrator reads the status, a person the body."""
    answer, body = ask(server, "/livez")
    assert (answer.status, json.loads(body)) == (200, {"ok": True, "threads": ["poll", "release", "loop"]})
    answer, body = ask(server, "/readyz")
    assert (answer.status, json.loads(body)) == (503, {"ok": False, "reasons": ["the model is not AVAILABLE"]})
    worker.is_live, worker.is_ready = (False, {}), (True, {})
    assert ask(server, "/livez")[0].status == 503
    assert ask(server, "/readyz")[0].status == 200


def test_status_is_the_workers_answer_as_json(server: HttpServer, worker: Worker) -> None:
    """Topic names and the like survive as they are, also when they are not ASCII or not Unicode at all."""
    worker.now = {"worker": "节点-1", "half": "\udc80"}
    answer, body = ask(server, "/status?now=1")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert json.loads(body) == worker.now


def test_metrics_get_the_accept_header_and_keep_their_content_type(server: HttpServer, worker: Worker) -> None:
    """Content negotiation is the metrics' own affair."""
    answer, body = ask(server, "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert (answer.status, body) == (200, b"# HELP a b\n")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
    assert worker.accepts == ["application/openmetrics-text"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez", "/readyz", "/status"])
def test_head_is_get_without_the_body(server: HttpServer, path: str) -> None:
    """HEAD answers the same status and length."""
    get, body = ask(server, path)
    head, nothing = ask(server, path, "HEAD")
    assert (head.status, nothing) == (get.status, b"")
    assert int(head.headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//[", "/status/../status", "/page.html"])
def test_other_paths_are_404(server: HttpServer, path: str) -> None:
    """Nothing but the five paths is served, and no file."""
    assert ask(server, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_405_and_name_those_allowed(server: HttpServer, method: str) -> None:
    """Five paths only read."""
    answer, _ = ask(server, "/status", method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert ask(server, "/nothing", method)[0].status == 404


def test_resume_is_done_by_post_and_by_nothing_else(server: HttpServer, worker: Worker) -> None:
    """A link, a probe or a crawler changes nothing."""
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        answer, _ = ask(server, "/resume", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert worker.resumed == []
    answer, body = ask(server, "/resume", "POST")
    assert (answer.status, json.loads(body)) == (200, {"resumed": ["flood"]})
    assert worker.resumed == [None]
    assert ask(server, "/resume?topic=shop.%E5%BA%97&x=1", "POST")[0].status == 200
    assert ask(server, "/resume?topic=", "POST")[0].status == 200
    assert worker.resumed == [None, "shop.店", ""]


def test_a_page_in_a_browser_cannot_resume(server: HttpServer, worker: Worker) -> None:
    """Loopback keeps other machines out, not what a browser on this one shows; browsers name the origin of a POST."""
    for origin in ("https://shop.example", f"http://127.0.0.1:{server.server_port}", "null"):
        assert ask(server, "/resume", "POST", {"Origin": origin})[0].status == 403
    others = [("Referer", "https://shop.example/"), ("Sec-Fetch-Site", "cross-site")]
    others += [("Content-Type", kind) for kind in ("text/plain;charset=UTF-8", "application/x-www-form-urlencoded")]
    for header in others:
        assert ask(server, "/resume", "POST", dict([header]))[0].status == 403
    assert worker.resumed == []
    assert ask(server, "/resume", "POST", {"Content-Type": "application/json"})[0].status == 200


PATHS = ("/", "/metrics", "/livez", "/readyz", "/status", "/nothing")


def raw(server: HttpServer, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a request that is sent as it is."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        client.sendall(request)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return answer.status, answer.read()


def test_a_page_that_rebinds_its_name_to_the_worker_reads_nothing(server: HttpServer, worker: Worker) -> None:
    """Every path refuses the page's host before anything is asked of the worker, and says which key lets a name in."""
    for host in ("shop.example", f"shop.example:{server.server_port}", "127.0.0.1.shop.example", "localhost.evil"):
        for path in PATHS:
            answer, body = ask(server, path, headers={"Host": host})
            assert answer.status == 403
            assert b"observability.http_hosts" in body
            assert host.encode() not in body
        assert ask(server, "/resume", "POST", {"Host": host})[0].status == 403
    assert worker.resumed == []
    assert worker.accepts == []


def test_a_configured_name_is_served(worker: Worker) -> None:
    """A Service's name, whatever its case, its port and a dot at its end."""
    server = worker.start(hosts=["Rexstream.shop.svc", "*.pods.example"])
    try:
        for host in ("rexstream.shop.svc:80", "REXSTREAM.shop.svc.", "a.b.pods.example:9464"):
            assert ask(server, "/livez", headers={"Host": host})[0].status == 200
        assert ask(server, "/livez", headers={"Host": "shop.svc"})[0].status == 403
    finally:
        server.close()


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"GET /livez HTTP/1.0", b"", 200),  # a load balancer's health check
        (b"GET /livez HTTP/1.0", b"Host: shop.example\r\n", 403),
        (b"GET /livez HTTP/1.1", b"", 400),
        (b"GET /livez HTTP/1.1", b"Host:\r\n", 403),
        (b"GET /livez HTTP/1.1", b"Host: 127.0.0.1\r\nHost: shop.example\r\n", 400),
        (b"GET /livez HTTP/1.1", b"Host: shop.example\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET /livez HTTP/1.1", b"host:  LOCALHOST:1 \r\n", 200),
        (b"GET http://shop.example/livez HTTP/1.1", b"Host: shop.example\r\n", 403),
        (b"GET /livez HTTP/1.1", b"Host: \xe2\x98\x83\r\n", 403),
    ],
)
def test_a_host_header_that_is_missing_empty_or_there_twice(
    server: HttpServer, request_line: bytes, headers: bytes, status: int
) -> None:
    """HTTP/1.1 wants exactly one; HTTP/1.0, which no browser speaks, may come without."""
    assert raw(server, request_line + b"\r\n" + headers + b"\r\n")[0] == status


def test_resume_has_a_rate(server: HttpServer, worker: Worker) -> None:
    """A loop around it would undo every pause; what was refused for another reason does not count."""
    ask(server, "/resume", "POST", {"Origin": "null"})
    answers = [ask(server, "/resume", "POST")[0] for _ in range(14)]
    assert [answer.status for answer in answers] == [200] * 12 + [429] * 2
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert len(worker.resumed) == 12
    assert ask(server, "/status")[0].status == 200


def test_a_refused_host_is_logged_once_a_minute(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    """An operator whose scraper was locked out reads why; a stranger cannot fill the log."""
    for number in range(5):
        ask(server, "/metrics", headers={"Host": f"{'x' * 300}{number}"})
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert "observability.http_hosts" in lines[0]
    assert "x" * 101 not in lines[0]


@pytest.mark.parametrize("answer", [lambda: {"x": object()}, lambda: {"x": float("nan")}, lambda: 1 / 0])
def test_an_answer_that_fails_is_500_and_the_next_one_works(server: HttpServer, worker: Worker, answer: Any) -> None:
    """Whatever the worker's callable does, the server goes on and shows no internals."""
    worker.status = answer  # type: ignore[method-assign]
    got, body = ask(server, "/status")
    assert got.status == 500
    assert b"Traceback" not in body
    assert b"Error" not in body
    assert ask(server, "/livez")[0].status == 200


def test_the_page_needs_nothing_but_itself(server: HttpServer) -> None:
    """No address in the page leads elsewhere, and its policy allows its own script and style and nothing more."""
    answer, body = ask(server, "/")
    page = body.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert set(re.findall(r"https?://[^\s'\"]+", page)) == {"http://www.w3.org/2000/svg"}
    assert re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page) == ["metrics", "status", "livez", "readyz"]
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way_in not in page
    assert not re.search(r"""\son\w+=|\sstyle=["']""", page)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'")
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        (digest,) = re.findall(rf"{element}-src 'sha256-([^']+)'", policy)
        assert b64decode(digest) == hashlib.sha256(content.encode()).digest()


def test_a_client_that_goes_away_or_sends_nonsense_harms_nobody(
    server: HttpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resets, half requests and binary noise end in their own connection, and nothing is printed."""
    for noise in (
        b"",
        b"\x16\x03\x01\x02\x00\xff",
        b"GET\r\n\r\n",
        b"GET /status HTTP/1.1\r\n",
        b"GET /status HTTP/9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
            client.sendall(noise)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert ask(server, "/livez")[0].status == 200
    # What Python prints: a Kafka client that an earlier test left behind may write to the descriptor.
    assert capsys.readouterr().err == ""


def test_more_idle_connections_than_allowed_push_the_oldest_out(server: HttpServer) -> None:
    """A client that opens connections and says nothing cannot keep a probe from being answered."""
    idle = [socket.create_connection(("127.0.0.1", server.server_port), timeout=20) for _ in range(80)]
    try:
        assert ask(server, "/livez")[0].status == 200
        idle[0].settimeout(5)  # half of the age at which it would be dropped anyway
        assert idle[0].recv(1) == b""
    finally:
        for client in idle:
            client.close()


def test_a_client_that_drips_bytes_is_cut_off(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of a connection counts, not the time since its last byte."""
    monkeypatch.setattr(telemetry_http, "_CONNECTION_SECONDS", 0.3)
    server = worker.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
            client.settimeout(0.05)
            ended = False
            deadline = time.monotonic() + 20
            while not ended and time.monotonic() < deadline:
                with suppress(TimeoutError):
                    try:
                        client.sendall(b"G")
                        ended = client.recv(1) == b""
                    except (BrokenPipeError, ConnectionResetError):
                        ended = True
            assert ended
    finally:
        server.close()


def test_a_slow_answer_blocks_only_who_asked(server: HttpServer, worker: Worker) -> None:
    """While /status is stuck, the probes still answer."""
    release = threading.Event()
    entered = threading.Event()

    def stuck() -> dict[str, str]:
        entered.set()
        release.wait(20)
        return {}

    worker.status = stuck  # type: ignore[method-assign]
    waiting = threading.Thread(target=ask, args=(server, "/status"))
    waiting.start()
    try:
        assert entered.wait(20)
        assert ask(server, "/livez")[0].status == 200
    finally:
        release.set()
        waiting.join()


def test_closing_frees_the_port_and_ends_open_connections(worker: Worker) -> None:
    """A restarted worker binds the same port at once, though a client still hangs on."""
    first = worker.start()
    client = socket.create_connection(("127.0.0.1", first.server_port), timeout=20)
    ask(first, "/livez")
    first.close()
    assert client.recv(1) == b""
    client.close()
    second = worker.start(f"127.0.0.1:{first.server_port}")
    assert ask(second, "/livez")[0].status == 200
    second.close()


def test_a_port_in_use_is_the_callers_error(server: HttpServer, worker: Worker) -> None:
    """The worker learns at its start that the address is taken."""
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        worker.start(f"127.0.0.1:{server.server_port}")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_address_is_served(worker: Worker) -> None:
    """[::1]:0 binds the v6 loopback."""
    try:
        server = worker.start("[::1]:0")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    try:
        with socket.create_connection(("::1", server.server_port), timeout=20) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: [::1]\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
    finally:
        server.close()


def test_the_port_is_the_one_that_is_bound(server: HttpServer) -> None:
    """Port 0 becomes the free port that was taken."""
    assert server.server_port != 0
    assert ask(server, "/livez")[0].status == 200


@pytest.mark.parametrize(
    ("address", "parsed"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("localhost:80", ("localhost", 80))],
)
def test_addresses_are_host_and_port(address: str, parsed: tuple[str, int]) -> None:
    """Both families, names too."""
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", [":9464", "9464", "localhost", "::1:80", "h:70000", "h:-1", "[]:80", "http://h:80"])
def test_an_address_without_host_or_port_is_refused_with_examples(address: str) -> None:
    """No address means every interface by accident."""
    with pytest.raises(ValueError, match=r"is not host:port; write 127\.0\.0\.1:9464"):
        parse_address(address)
