"""``rexstream run`` as a process with a Schema Registry, which may be away, closed or want to know who asks.

The registry is a double; tests/chaos/registry repeats what matters on a real one.
"""

from __future__ import annotations

import base64
import json
import ssl
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from avro_values import (
    NEWER,
    OLDER,
    RESULT_SCHEMA,
    REVIEWS,
    assert_spans_are_of,
    by_event,
    framed,
    messages,
    read_avro,
    said,
    schema_number,
    send,
)
from certificates import Authority
from registry_double import RegistryDouble
from worker_run import Run, start_looking_often

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stub_server import StubServer

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
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    double.schemas = {OLDER_ID: OLDER, NEWER_ID: NEWER}
    yield double
    double.stop()


def template(broker: Broker, label: str, *tasks: str) -> str:
    """An output template whose topics for these tasks exist."""
    base = broker.topic(1, label)
    for task in tasks:
        broker.order(f"topic {base}.{task} 1")
    return base + ".{task}"


def registry_worker(
    broker: Broker, server: StubServer, registry: RegistryDouble, folder: Path, *tasks: str, **settings: str
) -> tuple[Run, str]:
    """A worker of Avro events and Avro results, and its output template with a topic for each task.

    ``settings`` of kafka.registry beside the url.
    """
    output = template(broker, "out", *tasks)
    topics = (broker.topic(1, "in"), output, broker.topic(1, "dead"))
    route = {
        "input": topics[0],
        "format": "avro",
        "tasks": ["product_features"],
        "event_tasks": "any",
        "output": output,
        "output_format": "avro",
    }
    # As some have it, and then it must not show.
    url = registry.url if "username" in settings else registry.url.replace("://", f"://reader:{PASSWORD}@")
    environment = {f"REXSTREAM_KAFKA__REGISTRY__{key.upper()}": value for key, value in settings.items()}
    environment["REXSTREAM_OBSERVABILITY__LOG_LEVEL"] = "debug"
    worker = Run(broker.bootstrap, topics, server, folder, routes=[route], registry=url, environment=environment)
    return worker, output


def framed_results(worker: Run, topic: str, registry: RegistryDouble) -> list[dict[str, Any]]:
    """Results as a consumer reads them that knows nothing but the registry."""
    found = []
    for message in messages(worker.bootstrap, topic):
        value = message.value() or b""
        number = schema_number(value)
        assert number == registry.subjects[f"{topic}-value"]
        found.append(read_avro(registry.schemas[number], value[5:]))
    return found


def test_events_of_every_schema_that_the_registry_knows(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """Older and newer producers are read alike, an unknown id is one dead letter, results carry a registered id.

    A worker whose registry is not there when it starts waits for it with the first event, and needs no other start.
    """
    registry.stop()
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, "product_features")
    runs.append(worker)
    worker.start()
    send(
        worker.bootstrap,
        worker.input,
        [
            framed(OLDER_ID, OLDER, event_id="older", text=REVIEWS[0]),
            framed(UNKNOWN_ID, OLDER, event_id="unknown", text=REVIEWS[1]),
            framed(NEWER_ID, NEWER, stars=4, event_id="newer", text=REVIEWS[2], attributes={"shop": "s"}),
        ],
    )
    worker.wait(lambda: any("schema registry" in reason for reason in worker.get("/readyz")[1]["reasons"]))
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"])
    assert worker.lag() == 3
    registry.start()
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 2, "dead_letter": 1})
    worker.wait(lambda: worker.lag() == 0)
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
    """Also on topics of tasks that the route does not list and lets events name, and of schemas that come with them."""
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
    worker.wait(lambda: worker.get("/status")[1]["totals"].get("done") == 2)
    worker.wait(lambda: worker.lag() == 0)
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
    worker.wait(lambda: done() == ["first"])
    registry.stop()
    # One batch: what was handed over together with the event that makes the worker pause is not held back.
    new = events("new", "new2", number=NEWER_ID, schema=NEWER)
    send(worker.bootstrap, worker.input, [*new, *events("known", "known2")])
    worker.wait(lambda: done() == ["first", "known", "known2"])
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"])
    code, body = worker.get("/readyz")
    assert code == 503
    (reason,) = body["reasons"]
    assert reason.startswith(f"schema registry {registry.url} ")
    assert f'rexstream_paused{{reason="registry",topic="{worker.input}"}} 1.0' in worker.get("/metrics")[1]
    assert worker.get("/livez")[0] == 200
    send(worker.bootstrap, worker.input, events("later"))
    assert worker.dead_letters() == []
    assert worker.lag() == 5, "what waits is not committed, and nothing behind it"

    registry.start()
    worker.wait(lambda: done() == ["first", "known", "known2", "later", "new", "new2"])
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    worker.wait(lambda: worker.get("/status")[1]["paused"] == [])
    worker.wait(lambda: worker.lag() == 0)
    assert worker.dead_letters() == []


def test_a_result_schema_that_nobody_registered_is_waited_for(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """With auto_register off a worker registers nothing: results whose schema is missing wait, with the subject named,
    and those of other topics beside them do not. Once it is registered they come, all framed.
    """
    tasks = ("product_features", "sentiment")
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, *tasks, auto_register="false")
    there, missing = (output.format(task=task) for task in tasks)
    registry.schemas[31], registry.subjects[f"{there}-value"] = RESULT_SCHEMA, 31
    runs.append(worker)
    worker.start()
    values = [
        framed(NEWER_ID, NEWER, event_id="waits", text=REVIEWS[0], tasks=["sentiment"]),
        framed(NEWER_ID, NEWER, event_id="passes", text=REVIEWS[1]),
    ]
    send(worker.bootstrap, worker.input, values)
    worker.wait(lambda: len(framed_results(worker, there, registry)) == 1)
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"])
    (reason,) = worker.get("/readyz")[1]["reasons"]
    assert f"subject {missing}-value" in reason
    assert messages(worker.bootstrap, missing) == []
    assert list(registry.subjects) == [f"{there}-value"]

    registry.subjects[f"{missing}-value"] = 31
    worker.wait(lambda: [r["event_id"] for r in framed_results(worker, missing, registry)] == ["waits"])
    worker.wait(lambda: worker.lag() == 0)
    assert worker.get("/readyz")[0] == 200
    assert worker.dead_letters() == []


def test_a_subject_that_forbids_the_result_schema_pauses(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """The registry's own reason is told; when the rule is changed, the results come without another start."""
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, "product_features")
    topic = output.format(task="product_features")
    registry.subjects[f"{topic}-value"], registry.closed = OLDER_ID, {f"{topic}-value"}
    runs.append(worker)
    worker.start()
    send(worker.bootstrap, worker.input, [framed(OLDER_ID, OLDER, event_id="e", text=REVIEWS[0])])
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"])
    (reason,) = worker.get("/readyz")[1]["reasons"]
    assert "compatibility rule" in reason
    assert "must at /fields/14" in reason
    assert messages(worker.bootstrap, topic) == []

    registry.closed.clear()
    worker.wait(lambda: len(framed_results(worker, topic, registry)) == 1)
    worker.wait(lambda: worker.lag() == 0)
    assert worker.dead_letters() == []


def test_credentials_that_are_mended_need_no_other_start(
    mock_broker: Broker, server: StubServer, runs: list[Run], tmp_path: Path
) -> None:
    """Over mutual TLS with a user: refused, the worker waits with the reason and reads the new password by itself.
    Neither password is ever in its log, debug lines included, nor in what it says of itself.
    """
    authority = Authority("Ours")
    files = dict(zip(("server", "server_key"), authority.issue("registry"), strict=True))
    files |= dict(zip(("certificate_file", "key_file"), authority.issue("worker"), strict=True))
    files |= {"ca_file": authority.pem, "password_file": b"old-secret\n"}
    paths = {name: tmp_path / name for name in files}
    for name, content in files.items():
        paths[name].write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths["server"], paths["server_key"])
    context.load_verify_locations(paths["ca_file"])
    context.verify_mode = ssl.CERT_REQUIRED
    registry = RegistryDouble(context)
    try:
        registry.schemas = {NEWER_ID: NEWER}
        registry.answers[f"/schemas/ids/{NEWER_ID}"] = (401, {"error_code": 40101, "message": "Unauthorized"})
        settings = {name: str(paths[name]) for name in ("ca_file", "certificate_file", "key_file", "password_file")}
        worker, output = registry_worker(
            mock_broker, server, registry, tmp_path, "product_features", username="reader", **settings
        )
        runs.append(worker)
        worker.start()
        send(worker.bootstrap, worker.input, [framed(NEWER_ID, NEWER, event_id="e", text=REVIEWS[0])])
        worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"])
        told = json.dumps([worker.get(path) for path in ("/readyz", "/status")])
        assert "password_file" in told
        paths["password_file"].write_text("new-secret\n")
        registry.answers.clear()
        topic = output.format(task="product_features")
        worker.wait(lambda: len(framed_results(worker, topic, registry)) == 1)
        encoded = [base64.b64encode(f"reader:{age}-secret".encode()).decode() for age in ("old", "new")]
        assert registry.authorization == f"Basic {encoded[1]}"
        log = json.dumps(worker.lines())
        assert not [word for word in ("old-secret", "new-secret", *encoded) if word in log or word in told]
        assert worker.dead_letters() == []
    finally:
        registry.stop()


def test_a_new_password_is_used_before_the_old_one_is_refused(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """Some registries lock out who comes with a wrong one; the worker goes on as it is, not started again."""
    file = tmp_path / "password"
    file.write_text("first")
    login = {"username": "reader", "password_file": str(file)}
    worker, output = registry_worker(mock_broker, server, registry, tmp_path, "product_features", **login)
    runs.append(worker)
    start_looking_often(worker)
    send(worker.bootstrap, worker.input, [framed(OLDER_ID, OLDER, event_id="first", text=REVIEWS[0])])
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 1})
    assert registry.authorization == "Basic " + base64.b64encode(b"reader:first").decode()
    file.write_text("second")
    worker.wait(lambda: any(line["event"].startswith("credential files changed") for line in worker.lines()))
    send(worker.bootstrap, worker.input, [framed(NEWER_ID, NEWER, stars=4, event_id="second", text=REVIEWS[1])])
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 2})
    assert registry.authorization == "Basic " + base64.b64encode(b"reader:second").decode()
    worker.wait(lambda: worker.lag() == 0)
    assert len(framed_results(worker, output.format(task="product_features"), registry)) == 2
