"""The examples run as their first lines say."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stub_server import StubServer
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
REVIEWS = 25
TASKS = 2


@pytest.fixture
def worker(mock_broker: Any, tmp_path: Path) -> Iterator[Run]:
    server = StubServer()
    run = Run(mock_broker.bootstrap, [mock_broker.topic(2, label) for label in ("in", "out", "dead")], server, tmp_path)
    run.start()
    yield run
    run.kill()
    server.stop()


def example(name: str, *arguments: str, given: str = "") -> str:
    """What a Python example prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reviews_are_produced_and_results_are_subscribed_to_once_each(worker: Run, tmp_path: Path) -> None:
    """Also when a subscriber forgets its position and reads everything again, and when a producer sends twice."""
    lines = (ROOT / "schemas/samples/reviews.jsonl").read_text("utf-8").splitlines()[:REVIEWS]
    given = "\n".join(lines) + "\n"
    sent = example("produce_reviews.py", worker.bootstrap, worker.input, given=given)
    assert sent == f"{REVIEWS} of {REVIEWS} reviews are acknowledged\n"
    worker.wait_for_results(REVIEWS * TASKS)

    path = tmp_path / "facts.db"
    subscribe = ("subscribe.py", worker.bootstrap, worker.output, str(path), "1")
    assert example(*subscribe) == f"50 results read, 50 rows in {path}\n"
    assert example(*subscribe) == f"0 results read, 50 rows in {path}\n"

    example("produce_reviews.py", worker.bootstrap, worker.input, given=given)
    worker.wait(lambda: len(worker.results()) == 2 * REVIEWS * TASKS)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM positions")
    assert example(*subscribe) == f"100 results read, 50 rows in {path}\n"
    assert worker.dead_letters() == []


@pytest.mark.model
def test_an_own_task_extracts_without_kafka() -> None:
    pytest.importorskip("tensorflow")
    command = [sys.executable, "-m", "consumer", "extract", "--tasks-dir", "examples/own_task"]
    done = subprocess.run(
        [*command, "--task", "delivery_complaint"],
        cwd=ROOT,
        input=json.dumps({"text": "快递太慢了，盒子也压扁了。"}),
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "太慢了" in [fact["span"] for path in result["extractions"] for fact in path]


@pytest.mark.model
def test_an_own_model_is_exported_served_and_asked(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    command = ["bash", str(ROOT / "examples/own_model.sh"), "deploy/demo-model", str(tmp_path)]
    wrapper = tmp_path / "rexstream"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m consumer "$@"\n')
    wrapper.chmod(0o755)
    environment = {**os.environ, "REXSTREAM": str(wrapper), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    (result,) = map(json.loads, done.stdout.splitlines()[-1:])
    assert result["model"] == {"name": "reviews", "version": "1", "signature": "serving_default"}
    assert result["extractions"]
