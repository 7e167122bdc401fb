"""``rexstream run`` as a process: the formats of values, and what a worker does without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest
from avro_values import (
    EVENT_SCHEMA,
    RESULT_SCHEMA,
    REVIEWS,
    assert_spans_are_of,
    avro,
    by_event,
    messages,
    read_avro,
    said,
    send,
)
from worker_run import Run, expected, ids, reviews

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stub_server import StubServer

MODEL_EXTRA = ("tensorflow", "tensorflow_serving", "transformers", "safetensors", "torch")


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def order(self, line: str) -> None:
        """One order of mock_broker.py."""

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


def template(broker: Broker, label: str, *tasks: str) -> str:
    """An output template whose topics for these tasks exist."""
    base = broker.topic(1, label)
    for task in tasks:
        broker.order(f"topic {base}.{task} 1")
    return base + ".{task}"


def test_three_formats_in_one_worker(mock_broker: Broker, server: StubServer, runs: list[Run], tmp_path: Path) -> None:
    """Text, JSON and bare Avro side by side: what cannot be read is a dead letter, and its neighbours get results."""
    text, json_, avro_ = (mock_broker.topic(1, label) for label in ("text", "json", "avro"))
    plain = template(mock_broker, "plain", "product_features", "sentiment")
    binary = template(mock_broker, "binary", "product_features")
    dead = mock_broker.topic(1, "dead")
    worker = Run(
        mock_broker.bootstrap,
        (text, plain, dead),
        server,
        tmp_path,
        routes=[
            {"input": text, "format": "text", "tasks": ["product_features"], "output": plain},
            {"input": json_, "format": "json", "tasks": ["sentiment"], "output": plain},
            {
                "input": avro_,
                "format": "avro",
                "tasks": ["product_features"],
                "output": binary,
                "output_format": "avro",
            },
        ],
    )
    runs.append(worker)
    worker.start()
    bad_text = REVIEWS[1].encode() + b"\xff"
    send(worker.bootstrap, text, [REVIEWS[0].encode(), bad_text, REVIEWS[2].encode()])
    bad_json = b'{"event_id": "j1", "text": '
    singular = b'{"text": "neat", "task": "product_features"}'
    send(worker.bootstrap, json_, [*(value for _, value in reviews(1)), bad_json, reviews(1, 1)[0][1], singular])
    events = [avro(EVENT_SCHEMA, event_id=f"a{i}", text=REVIEWS[i], attributes={"shop": f"s{i}"}) for i in range(3)]
    bad_avro = events[1][:-4]
    send(worker.bootstrap, avro_, [events[0], bad_avro, events[2]])
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 6, "dead_letter": 4})
    assert worker.signal(signal.SIGTERM) == 0

    from_text = by_event(
        json.loads(m.value() or b"") for m in messages(worker.bootstrap, plain.format(task="product_features"))
    )
    assert set(from_text) == {f"{text}-0-0", f"{text}-0-2"}
    assert_spans_are_of(from_text[f"{text}-0-0"], REVIEWS[0])
    assert_spans_are_of(from_text[f"{text}-0-2"], REVIEWS[2])
    from_json = [json.loads(m.value() or b"") for m in messages(worker.bootstrap, plain.format(task="sentiment"))]
    assert ids(from_json) == [("e0", "sentiment"), ("e1", "sentiment")]
    values = [m.value() or b"" for m in messages(worker.bootstrap, binary.format(task="product_features"))]
    from_avro = by_event(read_avro(RESULT_SCHEMA, value) for value in values)
    assert {name: result["attributes"] for name, result in from_avro.items()} == {
        "a0": {"shop": "s0"},
        "a2": {"shop": "s2"},
    }
    assert_spans_are_of(from_avro["a0"], REVIEWS[0])
    assert_spans_are_of(from_avro["a2"], REVIEWS[2])

    letters = {said(m)["rexstream-dlq-class"]: m.value() for m in worker.dead_letters()}
    assert letters == {
        "InvalidUtf8": bad_text,
        "InvalidJson": bad_json,
        "InvalidAvro": bad_avro,
        "InvalidEvent": singular,
    }
    assert len(worker.dead_letters()) == 4


def without(modules: Sequence[str], folder: Path) -> dict[str, str]:
    """An environment in which Python finds none of these, however they are imported."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {tuple(modules)!r}:
            raise ModuleNotFoundError(name + " is absent in this test", name=name)

sys.meta_path.insert(0, Absent())
"""
    )
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def test_a_worker_needs_nothing_of_the_model_extra(
    mock_broker: Broker, server: StubServer, runs: list[Run], tmp_path: Path
) -> None:
    """Where neither TensorFlow nor what else exports a model is installed, it works as anywhere."""
    topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
    environment = without(MODEL_EXTRA, tmp_path / "hook")
    worker = Run(mock_broker.bootstrap, topics, server, tmp_path, environment=environment)
    runs.append(worker)
    worker.start()
    worker.send(reviews(10))
    worker.wait_for_results(20)
    assert worker.signal(signal.SIGTERM) == 0
    assert ids(worker.results()) == expected(10)
    assert worker.dead_letters() == []


@pytest.mark.parametrize("module", ["tensorflow", "grpc"])
def test_what_is_absent_cannot_be_imported(module: str, tmp_path: Path) -> None:
    """The hook of the test above hides what it names: gRPC, which a worker does need, and TensorFlow."""
    statement = {"grpc": "import consumer.worker.lifecycle", "tensorflow": "import tensorflow.python"}[module]
    environment = {**os.environ, **without((*MODEL_EXTRA, "grpc"), tmp_path / "hook")}
    done = subprocess.run(
        [sys.executable, "-c", statement], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{module} is absent in this test" in done.stderr
