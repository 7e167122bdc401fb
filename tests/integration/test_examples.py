"""The examples run as their first lines say; those with a model in test_document_commands.py."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from stub_server import StubServer
from worker_run import Run

from consumer.codecs.outputs import ModelUsed, Timing, encode_json, result_fields
from consumer.events import ReviewEvent, SourceRecord
from consumer.extraction.task import Extracted, Fact, Task

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


def a_result(event: str, task: str, offset: int, words: str, version: str = "1") -> bytes:
    """As a worker writes it, of a record on partition 0."""
    fact = Fact("优点", words, 0, len(words), 0.9)
    record = SourceRecord("in", 0, offset, 1, None, None, (), None, 0.0)
    fields = result_fields(
        ReviewEvent(event, words, product_id="p"),
        Task(task, "extract", {"优点": None}),
        Extracted(((fact,),), (), 1),
        ModelUsed("stub", version, "serving_default"),
        Timing(0.0, 1.0, 1.0, 1),
        offset,
        record,
    )
    return encode_json(fields)


def test_a_subscriber_is_not_reached_by_duplicates(mock_broker: Any, tmp_path: Path) -> None:
    """Of several tasks on two topics, of an edited review, beside deletes; also when all is read from the start."""
    one, other = mock_broker.topic(1, "one"), mock_broker.topic(1, "other")
    old, new = a_result("edited", "ner", 1, "旧"), a_result("edited", "ner", 5, "新")
    gone = a_result("gone", "ner", 2, "走")
    send: list[tuple[str, str, bytes | None]] = [
        (one, "k1", old),
        (one, "k1", old),
        (one, "k2", gone),
        (one, "k2", a_result("gone", "event", 2, "走")),
        (other, "k2", a_result("gone", "relation", 2, "走")),
        (one, "k1", new),
        (one, "k1", old),  # a worker was killed: it repeats what it had in flight
        (one, "k2", gone),
        (one, "k3", a_result("stays", "ner", 3, "留")),
        (one, "k2", None),
        (one, "k2", None),
        (one, "unknown", None),
        (one, "k2", a_result("again", "ner", 9, "又")),  # a new review under the key
    ]
    producer = Producer({"bootstrap.servers": mock_broker.bootstrap})
    for topic, key, value in send:
        producer.produce(topic, value, key, partition=0)
    assert producer.flush(30) == 0
    path = tmp_path / "facts.db"
    subscribe = ("subscribe.py", mock_broker.bootstrap, f"{one},{other}", str(path), "0.5")
    assert example(*subscribe) == f"10 results read, 4 rows in {path}\n"
    for _ in range(2):
        with sqlite3.connect(path) as database:
            found = database.execute(
                "SELECT event_id, task, extractions, topic FROM facts ORDER BY event_id"
            ).fetchall()
            database.execute("DELETE FROM positions")
        assert [(event, task, topic) for event, task, _, topic in found] == [
            ("again", "ner", one),
            ("edited", "ner", one),
            ("gone", "relation", other),
            ("stays", "ner", one),
        ]
        assert json.loads(found[1][2])[0][0]["span"] == "新"
        assert example(*subscribe) == f"10 results read, 4 rows in {path}\n"


def test_a_subscriber_takes_a_newer_answer_and_passes_nothing_over(mock_broker: Any, tmp_path: Path) -> None:
    """The same record extracted again by another model; then a position that the topic does not have (any more)."""
    topic, path = mock_broker.topic(1, "answers"), tmp_path / "facts.db"
    producer = Producer({"bootstrap.servers": mock_broker.bootstrap})
    for words, version in (("旧", "1"), ("新", "2")):
        producer.produce(topic, a_result("one", "ner", 1, words, version), "k", partition=0)
    assert producer.flush(30) == 0
    subscribe = ("subscribe.py", mock_broker.bootstrap, topic, str(path), "3")
    assert example(*subscribe) == f"2 results read, 1 rows in {path}\n"
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT model_version FROM facts").fetchall() == [("2",)]
        database.execute("UPDATE positions SET next_offset = 1000000")
    assert example(*subscribe) == f"2 results read, 1 rows in {path}\n"
