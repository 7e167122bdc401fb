"""``rexstream run`` as a process whose group takes no offsets: results come, and nothing says that they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from worker_run import Run, expected, ids, reviews

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stub_server import StubServer

pytestmark = pytest.mark.broker

OFFSET_COMMIT, GROUP_AUTHORIZATION_FAILED = 8, 30
REASON = "offsets cannot be committed"


@pytest.fixture
def worker(own_broker: Any, server: StubServer, tmp_path: Path) -> Iterator[Run]:
    topics = (own_broker.topic(1, "in"), own_broker.topic(1, "out"), own_broker.topic(1, "dead"))
    run = Run(own_broker.bootstrap, topics, server, tmp_path, delivery={"commit_pause_seconds": 2.0})
    yield run
    run.kill()


def sample(worker: Run, name: str) -> float:
    """One series of the worker's metrics."""
    (line,) = (line for line in worker.get("/metrics")[1].splitlines() if line.startswith(name + " "))
    return float(line.rpartition(" ")[2])


def test_a_worker_that_cannot_commit_takes_no_more_until_it_can(own_broker: Any, worker: Run) -> None:
    """It says why, is not ready, and goes on by itself; what a crash would repeat is bounded, and none is lost."""
    worker.start()
    worker.send(reviews(20))
    worker.wait_for_results(40)
    worker.wait(lambda: worker.lag() == 0)
    assert sample(worker, "rexstream_uncommitted_age_seconds") == 0
    committed = sample(worker, 'rexstream_commits_total{end="committed"}')
    assert committed >= 1

    own_broker.order(f"fail {OFFSET_COMMIT}" + f" {GROUP_AUTHORIZATION_FAILED}" * 2000)
    worker.send(reviews(20, 20))
    worker.wait_for_results(80)
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["commit"])
    code, body = worker.get("/readyz")
    assert code == 503
    (reason,) = body["reasons"]
    assert reason.startswith(REASON)
    assert "GROUP_AUTHORIZATION_FAILED" in reason
    assert sample(worker, "rexstream_uncommitted_age_seconds") >= 2
    assert sample(worker, 'rexstream_commits_total{end="failed"}') >= 1
    assert worker.get("/livez")[0] == 200
    worker.send(reviews(20, 40))
    age = sample(worker, "rexstream_uncommitted_age_seconds")
    worker.wait(lambda: sample(worker, "rexstream_uncommitted_age_seconds") > age + 3)
    assert ids(worker.results()) == expected(40), "what came after the pause waits in its topic"
    (line,) = (line for line in worker.lines() if line["level"] == "error")
    assert line["event"].startswith(REASON)
    assert line["code"] == "GROUP_AUTHORIZATION_FAILED"
    assert "right to read the group" in line["fix"]

    own_broker.order(f"forget {OFFSET_COMMIT}")
    worker.wait_for_results(120)
    worker.wait(lambda: worker.lag() == 0)
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    assert sample(worker, "rexstream_uncommitted_age_seconds") == 0
    assert worker.end() == 0
    assert ids(worker.results()) == expected(60), "no result twice, none missing"
    assert worker.dead_letters() == []
