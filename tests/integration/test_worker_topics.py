"""``rexstream run`` with several routes: what stops one input topic stops no other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from avro_values import OLDER, framed
from registry_double import RegistryDouble
from worker_run import Run, reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stub_server import StubServer

UNKNOWN_TOPIC = 3
FEW = {"REXSTREAM_LIMITS__IN_FLIGHT_EVENTS": "400"}
FLOOD = {
    "REXSTREAM_DELIVERY__DEAD_LETTER_RUN": "3",
    "REXSTREAM_DELIVERY__DEAD_LETTER_RATE": "0.1",
    "REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "600",
}


class Broker(Protocol):
    """The fixture ``own_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""

    def order(self, line: str) -> None:
        """One order of mock_broker.py."""


class Worker(Run):
    """Input topics a, b and c, whose results go to topics of their own."""

    def __init__(
        self,
        broker: Broker,
        server: StubServer,
        folder: Path,
        environment: Mapping[str, str],
        beside: Worker | None = None,
    ) -> None:
        """``beside``: a worker whose topics and group it shares."""
        self.inputs: tuple[str, ...]
        self.outputs: tuple[str, ...]
        self.inputs = beside.inputs if beside else tuple(broker.topic(2, f"in-{label}") for label in "abc")
        self.outputs = beside.outputs if beside else tuple(broker.topic(2, f"out-{label}") for label in "abc")
        routes = [
            {"input": one, "tasks": ["sentiment"], "output": out}
            for one, out in zip(self.inputs, self.outputs, strict=True)
        ]
        topics = (self.inputs[0], self.outputs[0], beside.dead if beside else broker.topic(2, "dead"))
        super().__init__(broker.bootstrap, topics, server, folder, routes=routes, environment=environment)

    def status(self) -> Any:
        return self.get("/status")[1]

    def paused(self) -> dict[str, list[str]]:
        """The topics that are paused for more than a moment, by reason."""
        topics: dict[str, list[str]] = self.status()["paused_topics"]
        return {reason: paused for reason, paused in topics.items() if reason != "backpressure"}

    def all_of(self, number: int, events: int) -> bool:
        """Whether every one of so many events has its result, and its offset is committed."""
        if self.lag(self.inputs[number]):
            return False
        return {each["event_id"] for each in self.results(self.outputs[number])} == {f"e{i}" for i in range(events)}

    def stop(self) -> tuple[int, float]:
        """The exit code after SIGTERM, and the seconds that it took."""
        started = time.monotonic()
        return self.signal(signal.SIGTERM), time.monotonic() - started


@pytest.fixture
def worker(own_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Makes the test's worker."""
    runs: list[Worker] = []

    def make(environment: Mapping[str, str] = {}) -> Worker:
        runs.append(Worker(own_broker, server, tmp_path, environment))
        return runs[-1]

    yield make
    for run in runs:
        run.kill()


def bad(count: int) -> list[tuple[str, bytes]]:
    return [(f"k{i}", b"{") for i in range(count)]


def lines_with(run: Run, words: str) -> Sequence[dict[str, Any]]:
    return [line for line in run.lines() if words in line["event"]]


@pytest.mark.parametrize(("events", "work_bytes"), [(10_000, 201_326_592), (2_500, 1_500_000)])
def test_an_output_that_is_missing_holds_up_only_the_topic_that_feeds_it(
    worker: Callable[..., Worker], own_broker: Broker, events: int, work_bytes: int
) -> None:
    """From the start, with thousands of records behind it: the others go on, are committed, drained and started again.

    The worker stays ready, says what waits, ends soon after SIGTERM, and publishes everything once the topic is there.
    Also where what waits is all the memory that its topic may have.
    """
    run = worker({"REXSTREAM_LIMITS__WORK_BYTES": str(work_bytes)})
    a, b, c = run.inputs
    own_broker.order(f"topic-error {run.outputs[0]} {UNKNOWN_TOPIC}")
    run.send(reviews(events), a)
    run.send(reviews(300), b)
    run.start()
    run.wait(lambda: run.all_of(1, 300))
    run.wait(lambda: run.paused() == {"output": [a]})
    run.send(reviews(300), c)
    run.wait(lambda: run.all_of(2, 300))
    assert run.get("/readyz") == (200, {"ok": True, "reasons": []})
    status = run.status()
    assert status["state"] == "consuming"
    assert status["waiting"] == {a: [f"output refused by {run.outputs[0]}"]}
    assert status["in_flight"]["events"] <= 2000
    metrics = run.get("/metrics")[1]
    assert f'rexstream_paused{{reason="output",topic="{a}"}} 1.0' in metrics
    assert f'rexstream_paused{{reason="output",topic="{b}"}} 0.0' in metrics

    code, seconds = run.stop()
    assert code == 1
    assert seconds < 15, "of a grace period of 20 s"
    (left,) = lines_with(run, "records are left that wait for outputs")
    assert left["blocked_outputs"] == [run.outputs[0]]
    assert run.lag(a) == events
    assert run.lag(b) == run.lag(c) == 0

    run.start()
    run.send(reviews(600)[300:], b)
    run.wait(lambda: run.all_of(1, 600))
    own_broker.order(f"topic-error {run.outputs[0]} 0")
    run.wait(lambda: run.lag(a) == 0)
    assert run.all_of(0, events)
    run.wait(lambda: run.paused() == {})
    assert len(run.results(run.outputs[1])) == 600
    assert run.stop()[0] == 0
    assert run.dead_letters() == []


def test_two_outputs_that_are_missing_leave_the_third_route_its_share(
    worker: Callable[..., Worker], own_broker: Broker
) -> None:
    """However many wait, those that can go on do."""
    run = worker(FEW)
    for output in run.outputs[:2]:
        own_broker.order(f"topic-error {output} {UNKNOWN_TOPIC}")
        run.send(reviews(1000), run.inputs[run.outputs.index(output)])
    run.start()
    run.wait(lambda: run.paused() == {"output": sorted(run.inputs[:2])})
    run.send(reviews(1000), run.inputs[2])
    run.wait(lambda: run.all_of(2, 1000))
    assert run.status()["in_flight"]["events"] <= 400
    assert run.get("/readyz")[0] == 200
    own_broker.order(f"topic-error {run.outputs[2]} {UNKNOWN_TOPIC}")
    run.send(reviews(1, 1000), run.inputs[2])


def test_a_dead_letter_topic_that_is_missing_holds_up_only_who_has_dead_letters(
    worker: Callable[..., Worker], own_broker: Broker
) -> None:
    """Good events need it not; the first bad one of a topic makes that topic wait. With every topic it is not ready."""
    run = worker()
    a, b, _ = run.inputs
    own_broker.order(f"topic-error {run.dead} {UNKNOWN_TOPIC}")
    run.send(bad(5), a)
    run.start()
    run.wait(lambda: run.paused() == {"output": [a]})
    run.send(reviews(100), b)
    run.wait(lambda: run.all_of(1, 100))
    for topic in run.inputs[1:]:
        run.send(bad(1), topic)
    run.wait(lambda: run.paused() == {"output": sorted(run.inputs)})
    run.wait(lambda: run.get("/readyz")[0] == 503)
    assert run.dead in str(run.get("/readyz")[1]["reasons"])
    own_broker.order(f"topic-error {run.dead} 0")
    run.wait(lambda: run.get("/readyz")[0] == 200)
    run.wait(lambda: sum(map(run.lag, run.inputs)) == 0)
    assert len(run.dead_letters()) == 7


def test_an_output_whose_broker_is_away_holds_up_only_the_topic_that_feeds_it(
    two_brokers: Broker, server: StubServer, tmp_path: Path
) -> None:
    """The client repeats such outputs for ever and reports nothing; silence counts, and no drain waits for it."""
    run = Worker(two_brokers, server, tmp_path, FEW)
    a, b, _ = run.inputs
    for topic in (*run.inputs, *run.outputs, run.dead):
        for partition in (0, 1):
            two_brokers.order(f"leader {topic} {partition} {2 if topic == run.outputs[0] else 1}")
    two_brokers.order(f"coordinator {run.group} 1")
    try:
        run.send(reviews(20), a)
        run.start()
        run.wait(lambda: run.all_of(0, 20))
        two_brokers.order("down 2")
        run.send(reviews(1000, 20), a)
        sent = 0

        def waits() -> bool:
            nonlocal sent
            run.send(reviews(1, sent), b)  # it goes on meanwhile
            sent += 1
            return run.paused() == {"output": [a]}

        run.wait(waits)
        run.wait(lambda: run.all_of(1, sent))
        assert run.get("/readyz")[0] == 200
        code, seconds = run.stop()
        assert (code, run.lag(b)) == (1, 0)
        assert seconds < 18, "of a grace period of 20 s"
        two_brokers.order("up 2")
        run.start()
        run.wait(lambda: run.all_of(0, 1020))
    finally:
        run.kill()


def test_a_producer_with_a_fifth_of_bad_records_stops_its_own_topic(
    worker: Callable[..., Worker], server: StubServer
) -> None:
    """The others go on in full, also while it is on trial; an operator resumes it by name."""
    run = worker(FLOOD)
    a, b, c = run.inputs
    mixed = [bad(1)[0] if i % 5 == 0 else reviews(1, i)[0] for i in range(1000)]
    run.start()
    run.send(mixed, a)
    run.send(reviews(200), b)
    run.wait(lambda: run.paused() == {"flood": [a]})
    assert run.get("/readyz")[0] == 200
    run.send(reviews(400)[200:], b)
    run.wait(lambda: run.all_of(1, 400))
    states = {topic: each["state"] for topic, each in run.status()["flood"]["topics"].items()}
    assert states == {a: "paused", b: "flowing", c: "flowing"}
    assert "ended in dead letters" in run.status()["waiting"][a][0]

    command = [sys.executable, "-m", "consumer", "resume", "--http", run.http.removeprefix("http://"), "--topic"]
    done = subprocess.run([*command, b], capture_output=True, text=True, check=False, timeout=60)
    assert "nothing to resume" in done.stdout
    run.wait(lambda: run.status()["in_flight"]["events"] == 0)
    server.gate.clear()
    done = subprocess.run([*command, a, "--json"], capture_output=True, text=True, check=False, timeout=60)
    assert json.loads(done.stdout)["topics"] == [a]
    run.send(reviews(300), c)
    run.wait(lambda: run.status()["in_flight"]["events"] >= 300, 20)
    assert run.status()["flood"]["topics"][a]["state"] == "trial"
    server.gate.set()
    run.wait(lambda: run.all_of(2, 300))


@pytest.mark.parametrize("side", ["events", "results"])
def test_a_registry_that_fails_stops_only_what_needs_it(
    own_broker: Broker, server: StubServer, tmp_path: Path, side: str
) -> None:
    """A route of Avro events, or of Avro results, waits for it; one of JSON goes on, and the worker is ready."""
    registry = RegistryDouble()
    registry.schemas = {7: OLDER}
    registry.stop()
    topics = [own_broker.topic(1, label) for label in ("in-avro", "out-avro", "in-json", "out-json", "dead")]
    avro, to_avro, plain, to_plain, dead = topics
    routes: list[dict[str, Any]] = [
        {"input": avro, "tasks": ["sentiment"], "output": to_avro},
        {"input": plain, "tasks": ["sentiment"], "output": to_plain},
    ]
    routes[0]["format" if side == "events" else "output_format"] = "avro"
    run = Run(own_broker.bootstrap, (plain, to_plain, dead), server, tmp_path, routes=routes, registry=registry.url)
    try:
        run.start()
        value = framed(7, OLDER, event_id="e0", text="外壳结实") if side == "events" else reviews(1)[0][1]
        run.send([("k", value)], avro)
        run.wait(lambda: run.get("/status")[1]["paused_topics"] == {"registry": [avro]})
        run.send(reviews(100))
        run.wait(lambda: run.lag() == 0)
        assert len(run.results()) == 100
        assert run.get("/readyz")[0] == 200
        assert "schema registry" in run.get("/status")[1]["waiting"][avro][0]
        registry.start()
        run.wait(lambda: run.lag(avro) == 0)
        run.wait(lambda: run.get("/status")[1]["paused_topics"] == {})
        assert run.dead_letters() == []
    finally:
        run.kill()
        registry.stop()


def test_a_rebalance_waits_for_what_goes_on_and_not_for_what_stands_still(
    worker: Callable[..., Worker], own_broker: Broker, server: StubServer, tmp_path: Path
) -> None:
    """A second worker joins: what is in flight of the other topics gets its time, as if nothing stood still."""
    first = worker(FEW)
    a, b, _ = first.inputs
    own_broker.order(f"topic-error {first.outputs[0]} {UNKNOWN_TOPIC}")
    first.send(reviews(500), a)
    first.start()
    first.wait(lambda: first.paused() == {"output": [a]})
    (tmp_path / "second").mkdir()
    second = Worker(own_broker, server, tmp_path / "second", FEW, beside=first)
    try:
        first.send(reviews(3000), b)
        second.start()
        first.wait(lambda: first.lag(b) == 0)
        second.wait(lambda: {a} < {each["topic"] for each in second.status()["assignment"]})
        revoked = {
            each.rpartition("-")[0]: line["seconds"]
            for line in lines_with(first, "revoking")
            for each in line["assignments"]
        }
        assert a in revoked
        assert any(seconds >= 1.0 for topic, seconds in revoked.items() if topic != a)
        assert first.all_of(1, 3000)
        own_broker.order(f"topic-error {first.outputs[0]} 0")
        first.wait(lambda: first.all_of(0, 500))
    finally:
        second.kill()
