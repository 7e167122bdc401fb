"""The status page of a real worker in a real browser: what somebody sees who is woken up, state by state.

With ``--pictures FOLDER`` the pictures of docs/operations.md are taken on the way (``make pictures``).
"""

from __future__ import annotations

import io
import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from deploy.broker import TOPICS, embedded_broker
from deploy.browser import Browser
from PIL import Image
from stub_server import StubServer
from worker_run import Run, reviews

from consumer.config.tree import Config, DeliveryConfig
from consumer.serving.dispatch.endpoint import EndpointStatus
from consumer.telemetry.http import HttpServer
from consumer.telemetry.metric_declarations import PAUSE_REASONS
from consumer.telemetry.metrics import Metrics
from consumer.worker.dead_letter_breaker import DeadLetterBreaker
from consumer.worker.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FLOOD = {
    "REXSTREAM_DELIVERY__DEAD_LETTER_RUN": "3",
    "REXSTREAM_DELIVERY__DEAD_LETTER_RATE": "null",
    "REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "600",
}


class Listed(NamedTuple):
    """What a worker is pointed at."""

    target: str


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("browser"))
    yield running
    running.close()


@pytest.fixture
def servers() -> Iterator[list[StubServer]]:
    """Three model servers."""
    started = [StubServer() for _ in range(3)]
    yield started
    for each in started:
        each.gate.set()
        each.stop()


@pytest.fixture
def start(servers: list[StubServer], browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts the test's worker before the three servers and opens its page."""
    runs: list[Run] = []

    def started(environment: dict[str, str] | None = None) -> Run:
        target = Listed("ipv4:" + ",".join(server.target for server in servers))
        worker = Run(bootstrap, TOPICS, target, tmp_path, environment=environment)  # type: ignore[arg-type]
        runs.append(worker)
        worker.start()
        browser.look()
        browser.open(worker.http)
        browser.until("document.getElementById('state').innerText === 'consuming'")
        browser.until(f"document.querySelectorAll('#servers .pill.good').length === {len(servers)}")
        return worker

    with embedded_broker() as bootstrap:
        yield started
        for each in runs:
            each.kill()


@pytest.fixture
def picture(browser: Browser, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Takes a picture of the page under a name, where pictures are wanted."""
    folder: Path | None = request.config.getoption("--pictures")

    def take(name: str, *, width: int = 1160, dark: bool = False) -> None:
        if folder is not None:
            browser.look(width, dark=dark)
            # 128 colours: half the size, and no eye sees it.
            Image.open(io.BytesIO(browser.picture())).convert("RGB").quantize(128).save(
                folder / f"{name}.png", optimize=True
            )
            browser.look()

    return take


def figure(browser: Browser, name: str) -> str:
    return browser.text(f"#{name}")


def gauge(worker: Run, name: str) -> float:
    """A metric without labels."""
    return next(
        float(line.split()[1]) for line in worker.get("/metrics")[1].splitlines() if line.startswith(name + " ")
    )


def test_an_idle_worker(start: Callable[..., Run], browser: Browser) -> None:
    """Nothing is wrong and nothing is said to be; nothing comes from elsewhere, and the policy refuses nothing."""
    worker = start()
    browser.until("document.getElementById('lag').innerText === '0'")
    assert browser.text("#problems") == ""
    assert not browser.run("return document.body.classList.contains('stale')")
    assert [figure(browser, each) for each in ("events", "flight", "fwindows")] == ["0", "0", "0"]
    loaded = browser.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded
    assert all(each.startswith((worker.http, "data:")) for each in loaded)
    assert browser.complaints() == []


class Told:
    """A page whose worker says what a test wants."""

    def __init__(self) -> None:
        breaker = DeadLetterBreaker(DeliveryConfig(), ["reviews.raw"])
        self.health = Health(Config(), "worker-0", Metrics(), breaker)
        self.health.model_available = True
        self.said: dict[str, Any] = dict(self.health.status()) | {"state": "consuming", "ready": True, "reasons": []}
        self.server = HttpServer(
            "127.0.0.1:0",
            live=self.health.live,
            ready=self.health.ready,
            status=lambda: self.said,
            metrics=self.health.metrics.exposition,
            resume=breaker.resume,
        )


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.server.close()


def show(browser: Browser, told: Told) -> None:
    browser.open(f"http://127.0.0.1:{told.server.server_port}")
    browser.until("document.getElementById('state').innerText !== 'connecting'")


@pytest.mark.parametrize("width", [360, 768, 1160])
def test_no_width_needs_scrolling_sideways(browser: Browser, told: Told, width: int) -> None:
    """Long names, addresses and reasons break; what a narrow page leaves out is not what is wrong."""
    long = "a" * 120
    sick = EndpointStatus("tf-serving-headless.models.svc.cluster.local:8500", "outage", 3, 9, 4, 1, long, 1.2)
    told.said |= {
        "worker": long,
        "reasons": [long],
        "ready": False,
        "paused": ["outage"],
        "paused_topics": {"outage": [long]},
        "paused_seconds": {"outage": 4000.0},
        "assignment": [{"topic": long, "partition": 11, "lag": 123456789, "lag_age_seconds": 3.0}],
        "dead_letters": {long: 3},
        "model": told.said["model"] | {"endpoints": [sick._asdict() | {"state_seconds": 61.0}] * 2},
    }
    browser.look(width)
    show(browser, told)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert "for 1 h 6 min" in browser.text("#problems")
    assert "does not answer" in browser.text("#servers")
    assert long in browser.text("#servers")
    browser.look()


def test_it_is_dark_where_that_is_wanted(browser: Browser, told: Told) -> None:
    """Light on dark, and dark on light, with a contrast that a tired person can read."""
    show(browser, told)
    colours = (
        "return ['color', 'backgroundColor'].map((c) => getComputedStyle(document.body)[c].match(/\\d+/g).map(Number))"
    )
    for dark in (False, True):
        browser.look(dark=dark)
        text, ground = (sum(colour) for colour in browser.run(colours))
        assert (text > ground) is dark
        assert abs(text - ground) > 500
    browser.look()


@pytest.mark.parametrize("reason", [each for each in PAUSE_REASONS if each not in ("draining", "other")])
def test_every_reason_to_pause_says_what_to_do(browser: Browser, told: Told, reason: str) -> None:
    """With its topics and since when; only backpressure is no fault."""
    told.said |= {"paused": [reason], "paused_topics": {reason: ["reviews.raw"]}, "paused_seconds": {reason: 75.0}}
    show(browser, told)
    said = browser.text("#problems")
    assert "To do: " in said
    assert "reviews.raw" in said
    assert "for 1 min 15 s" in said
    assert ("Runbook" in said) is (reason != "backpressure")


def test_whatever_things_are_called_is_shown_as_text(browser: Browser, told: Told) -> None:
    """Names and reasons come from producers, brokers and model servers; ``constructor`` is a legal topic."""
    evil = "<img src=x onerror=alert(1)>"
    sick = EndpointStatus(evil, evil, 0, 1, 1, 0, evil, 1.0)
    told.said |= {
        "worker": evil,
        "waiting": {evil: [f"{evil}: mend it with `rexstream resume`"]},
        "paused_topics": {"backpressure": ["constructor"], "outage": ["toString"], evil: [evil]},
        "paused_seconds": {"backpressure": 1.0, "outage": 1.0, evil: 1.0},
        "assignment": [{"topic": evil, "partition": 0, "lag": 1, "lag_age_seconds": 0.0}],
        "dead_letters": {evil: 1},
        "totals": {evil: 1},
        "model": told.said["model"]
        | {"name": evil, "version": evil, "endpoints": [sick._asdict() | {"state_seconds": 1}]},
    }
    show(browser, told)
    browser.until(f"document.getElementById('dead').innerText.includes({json.dumps(evil)})", 10)
    assert browser.run("return document.images.length") == 0
    problems = browser.text("#problems")
    assert "constructor" in problems
    assert "toString" in problems
    assert "mend it with rexstream resume" in problems
    assert browser.complaints() == []


def test_an_answer_that_it_does_not_know_is_no_silence(browser: Browser, told: Told) -> None:
    """Another version answers at the address: it says so, and goes on asking."""
    show(browser, told)
    known, told.said = told.said, {"state": "consuming"}
    browser.until("document.getElementById('lost').innerText.includes('does not understand')")
    told.said = known
    browser.until("document.getElementById('lost').hidden")
    assert not browser.run("return document.body.classList.contains('stale')")
    browser.complaints()


def test_a_busy_worker_says_the_same_everywhere(
    start: Callable[..., Run], browser: Browser, servers: list[StubServer], picture: Callable[..., None]
) -> None:
    """Page, /status and metrics, while calls hang, so that nothing changes; and again when all is done."""
    worker = start()
    worker.send(reviews(300))
    worker.wait_for_results(600)
    for server in servers:
        server.gate.clear()
    worker.send(reviews(60, 300))
    browser.until("document.getElementById('flight').innerText === '60'")
    worker.wait(
        lambda: worker.get("/status")[1]["in_flight"]["windows"] == gauge(worker, "rexstream_in_flight_windows")
    )
    status = worker.get("/status")[1]
    browser.until(f"document.getElementById('fwindows').innerText === '{status['in_flight']['windows']}'")
    assert status["in_flight"]["windows"] > 0
    assert [figure(browser, each) for each in ("flight", "rows", "tokens")] == [
        f"{each:,}" for each in (60, status["batches"]["rows_p50"], status["batches"]["tokens_p50"])
    ]
    shown = browser.run(
        "return [...document.querySelectorAll('#servers tbody tr')].map((row) => row.cells[2].innerText)"
    )
    assert [int(each) for each in shown] == [each["in_flight"] for each in status["model"]["endpoints"]]
    assert "done" in browser.text("#totals")
    assert "300" in browser.text("#totals")
    picture("status-busy")
    for server in servers:
        server.gate.set()
    browser.until("document.getElementById('flight').innerText === '0'")
    assert figure(browser, "fwindows") == "0"


def test_a_worker_paused_for_dead_letters(
    start: Callable[..., Run], browser: Browser, picture: Callable[..., None]
) -> None:
    """Why, since when, which records, and the two commands."""
    worker = start(FLOOD)
    worker.send(reviews(20))
    worker.wait_for_results(40)
    worker.send([("k", b"{")] * 12)
    browser.until("document.querySelector('#problems .bad')")
    said = browser.text("#problems .bad")
    assert re.search(r"Too many dead letters · for \d+ s", said)
    assert said.count("4 events in a row") == 1
    for part in ("reviews.raw", "reviews.raw-", "InvalidJson", "dead-letters list", "resume", "RexstreamDeadLetters"):
        assert part in said, said
    assert browser.text("#state").startswith("paused")
    dead = worker.get("/status")[1]["dead_letters"]
    browser.until(f"document.getElementById('dead').innerText.includes('{sum(dead.values())}')")
    picture("status-dead-letters-phone", width=390)


def test_the_model_servers_are_out(start: Callable[..., Run], browser: Browser, servers: list[StubServer]) -> None:
    """The pause once and not twice; each server with what it says; all well again when they are."""
    worker = start()
    for server in servers:
        server.away(away=True)
    deadline = time.monotonic() + 60
    while browser.run("return document.querySelectorAll('#servers .pill.bad').length") < len(servers):
        assert time.monotonic() < deadline, browser.text("#servers")
        worker.send(reviews(10))  # again: what broke off at one server waits for it, and shows nothing of the others
        time.sleep(0.5)
    browser.until("document.querySelector('#problems')?.innerText.includes('No model server answers')")
    said = browser.text("#problems")
    assert said.count("No model server answers") == 1
    assert "the model server does not answer" not in said, "the same in other words"
    assert "bring a model server back" in said
    assert "UNAVAILABLE" in browser.text("#servers")
    for server in servers:
        server.away(away=False)
    browser.until("document.getElementById('problems').innerText === ''")
    worker.wait_for_results(20)


def test_one_of_three_servers_is_sick(
    start: Callable[..., Run], browser: Browser, servers: list[StubServer], picture: Callable[..., None]
) -> None:
    """It is named, with since when and what it says; the worker is ready and goes on."""
    worker = start()
    worker.send(reviews(100))
    worker.wait_for_results(200)
    servers[1].stop()
    worker.send(reviews(200, 100))
    browser.until("document.querySelectorAll('#servers .pill.bad').length === 1")
    worker.wait_for_results(600)
    browser.until("document.getElementById('problems').innerText.includes('does not answer')")
    said = browser.text("#problems")
    assert servers[1].target in said
    assert re.search(r"for \d+ s", said)
    assert "2 of 3 do its work" in said
    assert browser.text("#state") == "consuming"
    picture("status-server-dark", dark=True)


def test_a_draining_worker_and_then_none(
    start: Callable[..., Run], browser: Browser, servers: list[StubServer], picture: Callable[..., None]
) -> None:
    """What is in flight; then that nothing answers, since when, and the last figures grey with their time."""
    worker = start()
    for server in servers:
        server.gate.clear()
    worker.send(reviews(30))
    browser.until("document.getElementById('flight').innerText === '30'")
    worker.process.send_signal(signal.SIGTERM)
    browser.until("document.getElementById('state').innerText === 'draining'")
    assert "30 reviews in flight are finished first" in browser.text("#problems")
    assert not browser.run("return document.querySelector('#problems .bad')"), "wanted, and no fault"
    for server in servers:
        server.gate.set()
    assert worker.process.wait(40) == 0
    browser.until("!document.getElementById('lost').hidden")
    browser.until("/for [2-9] s/.test(document.getElementById('lost').innerText)")
    assert "What is shown is of" in browser.text("#lost")
    assert "It was draining" in browser.text("#lost")
    assert browser.run("return getComputedStyle(document.querySelector('.grid')).opacity") == "0.45"
    assert browser.run("return document.title").startswith("no answer")
    picture("status-gone")
