"""``rexstream run`` with two versions of a task: side by side under two names, and in one group for a while."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from worker_run import Run, reviews

from consumer.codecs.outputs import result_id
from consumer.config.task_files import load_tasks
from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stub_server import StubServer

    from consumer.extraction.task import Task

pytestmark = pytest.mark.broker

FIRST = "name: {name}\nkind: extract\nschema: {{属性词: }}\n"
SECOND = "name: {name}\nkind: extract\nschema: {{属性词: , 情感词: }}\n"


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


def task(folder: Path, definition: str, name: str) -> Task:
    """A task file, and the task in it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(definition.format(name=name), encoding="utf-8")
    return load_tasks([folder])[name]


@pytest.fixture
def worker(
    mock_broker: Broker, server: StubServer, tmp_path: Path, runs: list[Run]
) -> Callable[[Path, Sequence[str]], Run]:
    """Starts a worker of the test's group, with these task files and names."""
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]

    def start(files: Path, names: Sequence[str]) -> Run:
        folder = tmp_path / f"worker-{len(runs)}"
        folder.mkdir()
        route = {"input": topics[0], "tasks": list(names), "output": topics[1], "inline_schemas": False}
        own = {"REXSTREAM_TASKS_DIRS": json.dumps([str(files)])}
        run = Run(mock_broker.bootstrap, topics, server, folder, routes=[route], environment=own)
        runs.append(run)
        run.start()
        return run

    return start


def seen(run: Run) -> list[dict[str, Any]]:
    """What a subscriber reads: the values, which agree with their headers."""
    found = []
    for message in read_to_end(run.bootstrap, run.output):
        value, headers = json.loads(message.value() or b""), dict(headers_of(message))
        for header, field in (("task", "task"), ("task-fingerprint", "task_fingerprint"), ("result-id", "result_id")):
            assert (headers[f"rexstream-{header}"] or b"").decode() == value[field]
        found.append(value)
    return found


def test_two_versions_side_by_side_and_then_the_new_one_alone(
    worker: Callable[[Path, Sequence[str]], Run], tmp_path: Path
) -> None:
    """A subscriber moves from one name to the other, event by event, and no id means two things."""
    files = tmp_path / "tasks"
    old, new = task(files, FIRST, "features"), task(files, SECOND, "features_v2")
    both = worker(files, ["features", "features_v2"])
    both.send(reviews(3))
    both.wait_for_results(6)
    assert both.end() == 0
    (logged,) = [line for line in both.lines() if line["event"] == "tasks"]
    assert logged["fingerprints"] == {"features": old.fingerprint, "features_v2": new.fingerprint}

    last = worker(files, ["features_v2"])
    last.send(reviews(3, start=3))
    last.wait_for_results(6 + 3)
    assert last.end() == 0

    results = seen(last)
    assert len({each["result_id"] for each in results}) == len(results) == 9
    for each in results:
        made_by = {"features": old, "features_v2": new}[each["task"]]
        assert each["task_fingerprint"] == made_by.fingerprint
        assert each["result_id"] == result_id(each["event_id"], made_by)
    for name, numbers in (("features", range(3)), ("features_v2", range(6))):
        assert sorted(each["event_id"] for each in results if each["task"] == name) == [f"e{i}" for i in numbers]
    assert last.lag() == 0
    assert last.dead_letters() == []


def test_a_changed_definition_in_a_group_that_is_exchanged_worker_by_worker(
    worker: Callable[[Path, Sequence[str]], Run], tmp_path: Path
) -> None:
    """While both work, a review has the result of one of them, and its fingerprint says whose."""
    before = task(tmp_path / "before", FIRST, "features")
    after = task(tmp_path / "after", SECOND, "features")
    old = worker(tmp_path / "before", ["features"])
    new = worker(tmp_path / "after", ["features"])

    def shared() -> bool:
        return all(len(run.get("/status")[1]["assignment"]) == 1 for run in (old, new))

    new.wait(shared)
    new.send(reviews(40))
    new.wait_for_results(40)
    results = seen(new)
    by_fingerprint = {task.fingerprint: task for task in (before, after)}
    assert {each["task_fingerprint"] for each in results} == set(by_fingerprint)
    assert sorted(each["event_id"] for each in results) == sorted(f"e{i}" for i in range(40))
    for each in results:
        assert each["result_id"] == result_id(each["event_id"], by_fingerprint[each["task_fingerprint"]])
