"""``rexstream run`` under a flood of records that end in dead letters: it pauses, and none is dropped."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from worker_run import Run, expected, ids, reviews

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stub_server import StubServer

ENVIRONMENT = {
    "REXSTREAM_DELIVERY__DEAD_LETTER_RUN": "3",
    "REXSTREAM_DELIVERY__DEAD_LETTER_RATE": "null",
    # Few in flight, so that ten bad records do not all fit into the bound of what still finishes.
    "REXSTREAM_LIMITS__IN_FLIGHT_EVENTS": "2",
}
LONG = {**ENVIRONMENT, "REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "600"}
SHORT = {**ENVIRONMENT, "REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "0.3"}


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Makes the test's worker."""
    runs: list[Run] = []

    def make(environment: dict[str, str]) -> Run:
        topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
        runs.append(Run(mock_broker.bootstrap, topics, server, tmp_path, environment=environment))
        return runs[-1]

    yield make
    for run in runs:
        run.kill()


def bad(count: int) -> list[tuple[str, bytes]]:
    return [("k", b"{") for _ in range(count)]


def dead_ids(run: Run) -> list[str]:
    return sorted((dict(headers_of(message))["rexstream-dlq-id"] or b"").decode() for message in run.dead_letters())


def paused(run: Run) -> bool:
    return "flood" in run.get("/status")[1]["paused"]


def resume(run: Run) -> Any:
    """``rexstream resume --json``."""
    command = [sys.executable, "-m", "consumer", "resume", "--http", run.http.removeprefix("http://"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def post(run: Run) -> Any:
    """What the command does, without the start of a process."""
    connection = http.client.HTTPConnection(run.http.removeprefix("http://"), timeout=20)
    connection.request("POST", "/resume")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def resume_until(run: Run, over: Callable[[], bool]) -> None:
    """Resume as often as it pauses."""
    while True:
        run.wait(lambda: over() or paused(run))
        if over():
            return
        assert post(run)["resumed"] == ["flood"]


def lines_with(run: Run, words: str) -> Sequence[dict[str, Any]]:
    return [line for line in run.lines() if words in line["event"]]


def test_ten_bad_records_with_a_run_of_three_all_become_dead_letters(worker: Callable[..., Run]) -> None:
    """After the fourth in a row it pauses and shows it everywhere; resumed, it goes on; none is dropped."""
    run = worker(LONG)
    run.start()
    assert resume(run)["resumed"] == []
    run.send(bad(10))
    run.wait(lambda: paused(run))
    ready, answer = run.get("/readyz")
    assert ready == 503
    assert "4 events in a row ended in dead letters" in str(answer["reasons"])
    assert f'rexstream_paused{{reason="flood",topic="{run.input}"}} 1.0' in run.get("/metrics")[1]
    status = run.get("/status")[1]
    assert status["flood"]["state"] == "paused"
    assert 500 < status["flood"]["trial_in_seconds"] <= 600
    assert status["flood"]["classes"] == {"InvalidJson": 4}
    assert status["flood"]["examples"] == [f"{run.input}-0@{offset}" for offset in (1, 2, 3)]
    assert f"(InvalidJson 4; such as {run.input}-0@1, " in str(answer["reasons"])
    run.wait(lambda: run.get("/status")[1]["in_flight"]["events"] == 0)
    assert 4 <= len(run.dead_letters()) < 10
    run.wait(lambda: run.lag() == 10 - len(run.dead_letters()))

    assert resume(run)["resumed"] == ["flood"]
    resume_until(run, lambda: len(run.dead_letters()) == 10)
    run.wait(lambda: run.lag() == 0)
    assert dead_ids(run) == [f"{run.input}-0-{offset}" for offset in range(10)]
    assert [line["level"] for line in lines_with(run, "too many dead letters")].count("error") == 1
    assert lines_with(run, "too many dead letters")[0]["classes"] == {"InvalidJson": 4}


def test_a_good_trial_lets_consumption_go_on_in_full(worker: Callable[..., Run]) -> None:
    """Pauses end by themselves, grow while the flood lasts, and leave nothing behind when it is over."""
    run = worker(SHORT)
    run.start()
    run.send([*bad(12), *reviews(30)])
    run.wait_for_results(60)
    run.wait(lambda: run.get("/status")[1]["flood"]["state"] == "flowing")
    run.wait(lambda: run.get("/readyz") == (200, {"ok": True, "reasons": []}))
    run.wait(lambda: f'rexstream_paused{{reason="flood",topic="{run.input}"}} 0.0' in run.get("/metrics")[1])
    run.wait(lambda: run.lag() == 0)
    assert len(set(dead_ids(run))) == len(run.dead_letters()) == 12
    assert ids(run.results()) == expected(30)
    pauses = [round(line["seconds"], 1) for line in lines_with(run, "too many dead letters")]
    assert pauses[:2] == [0.3, 0.6]
    assert len(lines_with(run, "consumption goes on in full")) == 1


def test_sigterm_in_a_flood_pause_drains_and_a_successor_goes_on(worker: Callable[..., Run]) -> None:
    """Exit code 0, at once: nothing is in flight. What was not read is there for the next one, and comes once."""
    run = worker(LONG)
    run.start()
    run.send([*bad(10), *reviews(20)])
    run.wait(lambda: paused(run))
    assert run.signal(signal.SIGTERM) == 0
    left = run.lag()
    assert left == 30 - len(run.dead_letters())
    assert left > 20
    run.start()
    resume_until(run, lambda: len(run.results()) == 40)
    run.wait(lambda: run.lag() == 0)
    assert len(set(dead_ids(run))) == len(run.dead_letters()) == 10
    assert ids(run.results()) == expected(20)


def test_results_that_no_topic_takes_are_a_flood_too(worker: Callable[..., Run]) -> None:
    """Their dead letters are made long after their outcomes, on another thread."""
    run = worker({**LONG, "REXSTREAM_KAFKA__CLIENT__MESSAGE_MAX_BYTES": "3000"})
    run.start()
    wide = {"text": "外壳结实", "attributes": {"note": "x" * 3500}}
    run.send([("k", json.dumps({**wide, "event_id": f"e{i}"}).encode()) for i in range(10)])
    run.wait(lambda: paused(run))
    resume_until(run, lambda: len(run.dead_letters()) == 20)
    run.wait(lambda: run.lag() == 0)
    assert len(set(dead_ids(run))) == 20
    assert run.results() == []
