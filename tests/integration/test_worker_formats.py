"""``rexstream run`` as a process: the formats of values, the schema registry, and what a worker does without."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fastavro
import pytest
from confluent_kafka import Message, Producer
from registry_double import RegistryDouble
from stub_server import StubServer
from worker_run import Run, expected, ids, reviews

from consumer.kafka.tailing import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SHIPPED = Path(__file__).parents[2] / "schemas/avro"
EVENT_SCHEMA = (SHIPPED / "review_event.avsc").read_text("utf-8")
RESULT_SCHEMA = (SHIPPED / "extraction_result.avsc").read_text("utf-8")

REVIEWS = ("屏幕清楚，电池耐用", "鞋底偏硬，走久了脚疼", "客服耐心，退款也快", "味道淡，分量倒是足", "袋子薄，一提就破")

MODEL_EXTRA = ("tensorflow", "tensorflow_serving", "transformers", "safetensors", "torch")


def writer_schema(*fields: dict[str, Any]) -> str:
    """A producer's schema of events."""
    return json.dumps({"type": "record", "name": "rexstream.ReviewEvent", "fields": fields})


OLDER = writer_schema({"name": "text", "type": "string"}, {"name": "event_id", "type": "string"})
NEWER = json.dumps(
    {
        **json.loads(EVENT_SCHEMA),
        # First, so that whoever reads with a schema of their own reads nonsense.
        "fields": [{"name": "stars", "type": "int", "default": 0}, *json.loads(EVENT_SCHEMA)["fields"]],
    }
)
OLDER_ID, NEWER_ID, UNKNOWN_ID = 7, 70_000, 99
PASSWORD = "hunter2"


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def order(self, line: str) -> None:
        """One order of mock_broker.py."""

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def server() -> Iterator[StubServer]:
    stub = StubServer()
    yield stub
    stub.gate.set()
    stub.stop()


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    double.schemas = {OLDER_ID: OLDER, NEWER_ID: NEWER}
    yield double
    double.stop()


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Workers to end with the test."""
    started: list[Run] = []
    yield started
    for run in started:
        run.kill()


def avro(written_with: str, **fields: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, json.loads(written_with), fields)
    return out.getvalue()


def framed(number: int, written_with: str, **fields: Any) -> bytes:
    return struct.pack(">bI", 0, number) + avro(written_with, **fields)


def read_avro(schema: str, datum: bytes) -> dict[str, Any]:
    """Also that nothing is left behind it."""
    stream = io.BytesIO(datum)
    fields: Any = fastavro.schemaless_reader(stream, json.loads(schema), None)
    assert stream.tell() == len(datum)
    result: dict[str, Any] = fields
    return result


def send(bootstrap: str, topic: str, values: Sequence[bytes]) -> None:
    """One batch, each value with a key of its own: none waits for another's results."""
    producer = Producer({"bootstrap.servers": bootstrap})
    failed: list[object] = []
    for number, value in enumerate(values):
        producer.produce(topic, value, f"k{number}", on_delivery=lambda e, _: failed.append(e) if e else None)
    assert producer.flush(10) == 0
    assert failed == []


def template(broker: Broker, label: str, *tasks: str) -> str:
    """An output template whose topics for these tasks exist."""
    base = broker.topic(1, label)
    for task in tasks:
        broker.order(f"topic {base}.{task} 1")
    return base + ".{task}"


def messages(worker: Run, topic: str) -> list[Message]:
    return list(read_to_end(worker.bootstrap, topic))


def said(letter: Message) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in headers_of(letter)}


def by_event(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each event's one result."""
    found = {}
    for result in results:
        assert result["event_id"] not in found
        found[result["event_id"]] = result
    return found


def assert_spans_are_of(result: Mapping[str, Any], text: str) -> None:
    """Offsets count from the start of the review, whatever it came wrapped in."""
    facts = [fact for path in result["extractions"] for fact in path if fact["span"] is not None]
    assert facts
    assert all(text[fact["start"] : fact["end"]] == fact["span"] for fact in facts)


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
    send(worker.bootstrap, json_, [*(value for _, value in reviews(1)), bad_json, reviews(1, 1)[0][1]])
    events = [avro(EVENT_SCHEMA, event_id=f"a{i}", text=REVIEWS[i], attributes={"shop": f"s{i}"}) for i in range(3)]
    bad_avro = events[1][:-4]
    send(worker.bootstrap, avro_, [events[0], bad_avro, events[2]])
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 6, "dead_letter": 3}, 20)
    assert worker.signal(signal.SIGTERM) == 0

    from_text = by_event(json.loads(m.value() or b"") for m in messages(worker, plain.format(task="product_features")))
    assert set(from_text) == {f"{text}-0-0", f"{text}-0-2"}
    assert_spans_are_of(from_text[f"{text}-0-0"], REVIEWS[0])
    assert_spans_are_of(from_text[f"{text}-0-2"], REVIEWS[2])
    from_json = [json.loads(m.value() or b"") for m in messages(worker, plain.format(task="sentiment"))]
    assert ids(from_json) == [("e0", "sentiment"), ("e1", "sentiment")]
    values = [m.value() or b"" for m in messages(worker, binary.format(task="product_features"))]
    from_avro = by_event(read_avro(RESULT_SCHEMA, value) for value in values)
    assert {name: result["attributes"] for name, result in from_avro.items()} == {
        "a0": {"shop": "s0"},
        "a2": {"shop": "s2"},
    }
    assert_spans_are_of(from_avro["a0"], REVIEWS[0])
    assert_spans_are_of(from_avro["a2"], REVIEWS[2])

    letters = {said(m)["rexstream-dlq-class"]: m.value() for m in worker.dead_letters()}
    assert letters == {"InvalidUtf8": bad_text, "InvalidJson": bad_json, "InvalidAvro": bad_avro}
    assert len(worker.dead_letters()) == 3


def registry_worker(
    broker: Broker, server: StubServer, registry: RegistryDouble, folder: Path, *tasks: str
) -> tuple[Run, str]:
    """A worker of Avro events and Avro results, and its output template with a topic for each task."""
    output = template(broker, "out", *tasks)
    topics = (broker.topic(1, "in"), output, broker.topic(1, "dead"))
    route = {
        "input": topics[0],
        "format": "avro",
        "tasks": ["product_features"],
        "output": output,
        "output_format": "avro",
    }
    # As some have it, and then it must not show.
    url = registry.url.replace("://", f"://reader:{PASSWORD}@")
    return Run(broker.bootstrap, topics, server, folder, routes=[route], registry=url), output


def framed_results(worker: Run, topic: str, registry: RegistryDouble) -> list[dict[str, Any]]:
    """Results as a consumer reads them that knows nothing but the registry."""
    found = []
    for message in messages(worker, topic):
        value = message.value() or b""
        magic, number = struct.unpack_from(">bI", value)
        assert magic == 0
        assert number == registry.subjects[f"{topic}-value"]
        found.append(read_avro(registry.schemas[number], value[5:]))
    return found


def test_events_of_every_schema_that_the_registry_knows(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """Older and newer producers are read alike, an unknown id is one dead letter, results carry a registered id.

    A worker whose registry is not there when it starts says so and waits for it.
    """
    registry.stop()
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, "product_features")
    runs.append(worker)
    worker.start()
    worker.wait(lambda: any("schema registry" in reason for reason in worker.get("/readyz")[1]["reasons"]), 20)
    registry.start()
    send(
        worker.bootstrap,
        worker.input,
        [
            framed(OLDER_ID, OLDER, event_id="older", text=REVIEWS[0]),
            framed(UNKNOWN_ID, OLDER, event_id="unknown", text=REVIEWS[1]),
            framed(NEWER_ID, NEWER, stars=4, event_id="newer", text=REVIEWS[2], attributes={"shop": "s"}),
        ],
    )
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 2, "dead_letter": 1}, 20)
    worker.wait(lambda: worker.lag() == 0, 20)
    assert worker.get("/readyz") == (200, {"ok": True, "reasons": []})

    results = by_event(framed_results(worker, output.format(task="product_features"), registry))
    assert {name: result["attributes"] for name, result in results.items()} == {"older": {}, "newer": {"shop": "s"}}
    assert_spans_are_of(results["older"], REVIEWS[0])
    assert_spans_are_of(results["newer"], REVIEWS[2])
    (letter,) = worker.dead_letters()
    assert said(letter)["rexstream-dlq-class"] == "UnknownSchemaId"
    assert str(UNKNOWN_ID) in said(letter)["__dlq.errors.message"]

    assert registry.authorization == "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
    assert PASSWORD not in json.dumps(worker.lines())


def test_an_event_that_chooses_its_task_gets_framed_results(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """Also on topics of tasks that the route does not list, and of schemas that come with events."""
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, "sentiment")
    runs.append(worker)
    worker.start()
    send(
        worker.bootstrap,
        worker.input,
        [
            framed(NEWER_ID, NEWER, event_id="named", text=REVIEWS[3], tasks=["sentiment"]),
            framed(NEWER_ID, NEWER, event_id="inline", text=REVIEWS[4], schema='{"包装": null}'),
        ],
    )
    worker.wait(lambda: worker.get("/status")[1]["totals"].get("done") == 2, 20)
    worker.wait(lambda: worker.lag() == 0, 20)
    (named,) = framed_results(worker, output.format(task="sentiment"), registry)
    (inline,) = framed_results(worker, output.removesuffix(".{task}"), registry)
    assert [named["event_id"], inline["event_id"]] == ["named", "inline"]
    assert worker.dead_letters() == []


def test_an_outage_of_the_registry_pauses_and_dead_letters_nothing(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """Events of a new id wait for it, those of known ids behind them do not, and every event gets its result."""
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, "product_features")
    topic = output.format(task="product_features")
    runs.append(worker)
    worker.start()

    def events(*names: str, number: int = OLDER_ID, schema: str = OLDER) -> list[bytes]:
        return [framed(number, schema, event_id=name, text=REVIEWS[len(name) % len(REVIEWS)]) for name in names]

    def done() -> list[str]:
        return sorted(result["event_id"] for result in framed_results(worker, topic, registry))

    send(worker.bootstrap, worker.input, events("first"))
    worker.wait(lambda: done() == ["first"], 20)
    registry.stop()
    # One batch: what was handed over together with the event that makes the worker pause is not held back.
    new = events("new", "new2", number=NEWER_ID, schema=NEWER)
    send(worker.bootstrap, worker.input, [*new, *events("known", "known2")])
    worker.wait(lambda: done() == ["first", "known", "known2"], 20)
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"], 20)
    code, body = worker.get("/readyz")
    assert code == 503
    (reason,) = body["reasons"]
    assert reason.startswith(f"schema registry {registry.url} ")
    assert 'rexstream_paused{reason="registry"} 1.0' in worker.get("/metrics")[1]
    assert worker.get("/livez")[0] == 200
    send(worker.bootstrap, worker.input, events("later"))
    assert worker.dead_letters() == []
    assert worker.lag() == 5, "what waits is not committed, and nothing behind it"

    registry.start()
    worker.wait(lambda: done() == ["first", "known", "known2", "later", "new", "new2"], 20)
    worker.wait(lambda: worker.get("/readyz")[0] == 200, 20)
    assert worker.get("/status")[1]["paused"] == []
    worker.wait(lambda: worker.lag() == 0, 20)
    assert worker.dead_letters() == []


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
    statement = {"grpc": "import consumer.worker", "tensorflow": "import tensorflow.python"}[module]
    environment = {**os.environ, **without((*MODEL_EXTRA, "grpc"), tmp_path / "hook")}
    done = subprocess.run(
        [sys.executable, "-c", statement], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{module} is absent in this test" in done.stderr
