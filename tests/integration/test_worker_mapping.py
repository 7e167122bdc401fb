"""``rexstream run`` on what producers really send: change events with their deletes, rows of one record, a replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from avro_frames import datum, framed
from avro_values import REVIEWS, messages, said
from confluent_kafka import Producer
from registry_double import RegistryDouble
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stub_server import StubServer


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def order(self, line: str) -> None:
        """One order of mock_broker.py."""

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


ENVELOPE: dict[str, Any] = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.reviews",
    "fields": [
        {"name": "before", "type": ["null", "string"]},
        {
            "name": "after",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Value",
                    "fields": [{"name": "id", "type": "long"}, {"name": "content", "type": "string"}],
                },
            ],
        },
        {
            "name": "source",
            "type": {"type": "record", "name": "Source", "fields": [{"name": "table", "type": "string"}]},
        },
        {"name": "op", "type": "string"},
    ],
}


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    double.schemas = {7: json.dumps(ENVELOPE)}
    yield double
    double.stop()


def change(op: str, number: int, text: str | None) -> bytes:
    """A change event of Debezium with its schema, as Connect's JSON converter writes it."""
    row = None if text is None else {"id": number, "content": text, "created_at": 1_700_000_000_123_456, "stars": 5}
    before = {"id": number, "content": "", "created_at": 0, "stars": 0} if op == "d" else None
    types = {"id": "int64", "content": "string", "created_at": "int64", "stars": "int16"}
    fields: list[dict[str, Any]] = [{"field": name, "type": kind} for name, kind in types.items()]
    fields[2]["name"] = "io.debezium.time.MicroTimestamp"
    schema = {"type": "struct", "fields": [{"type": "struct", "fields": fields, "field": "after", "optional": True}]}
    source = {"connector": "mysql", "db": "shop", "table": "reviews", "schema": "public"}
    payload = {"before": before, "after": row, "source": source, "op": op, "ts_ms": 1_700_000_000_500}
    return json.dumps({"schema": schema, "payload": payload}, ensure_ascii=False).encode()


def key(number: int) -> bytes:
    return json.dumps({"schema": {"type": "struct"}, "payload": {"id": number}}).encode()


def send(run: Run, topic: str, *records: tuple[bytes | None, bytes | None]) -> None:
    producer = Producer({"bootstrap.servers": run.bootstrap, "partitioner": "murmur2_random"})
    for its_key, value in records:
        producer.produce(topic, value, its_key)
    assert producer.flush(30) == 0


def test_change_events_rows_and_their_deletes(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, tmp_path: Path
) -> None:
    """Results under the row's key, then its tombstone; what is no review is counted; a bad row is its own letter."""
    cdc, plain, canal, avro_, dead = (mock_broker.topic(2, each) for each in ("cdc", "plain", "canal", "avro", "dead"))
    base = mock_broker.topic(2, "out")
    for task in ("sentiment", "product_features"):
        mock_broker.order(f"topic {base}.{task} 2")
    shared = {"tasks": ["sentiment", "product_features"], "output": f"{base}.{{task}}"}
    fields = {"text": "content", "event_id": ["$key.id"], "attributes": {"stars": "stars", "table": "source.table"}}
    worker = Run(
        mock_broker.bootstrap,
        (cdc, base, dead),
        server,
        tmp_path,
        routes=[
            {"input": cdc, "preset": "debezium", "on_delete": "forward", "fields": fields, **shared},
            {"input": canal, "preset": "canal", "fields": {"text": "content"}, **shared},
            {"input": plain, **shared},
            {
                "input": avro_,
                "format": "avro",
                "preset": "debezium",
                "on_delete": "forward",
                "fields": fields,
                **shared,
            },
        ],
        registry=registry.url,
    )
    worker.start()
    try:
        send(worker, cdc, *((key(n), change("c", n, REVIEWS[n])) for n in range(3)), (key(9), b'{"ts_ms": 1}'))
        send(
            worker, cdc, (key(1), change("d", 1, None)), (key(1), None), (None, None), (key(2), change("u", 2, "好用"))
        )
        rows = [{"id": str(n), "content": text} for n, text in enumerate([REVIEWS[0], "", REVIEWS[2]])]
        message = {"type": "INSERT", "isDdl": False, "data": rows, "database": "shop", "table": "reviews"}
        send(worker, canal, (None, json.dumps(message, ensure_ascii=False).encode()))
        send(worker, plain, (b"p", json.dumps({"text": REVIEWS[0], "event_id": "p"}).encode()), (b"p", None))
        for op, text in (("c", REVIEWS[0]), ("d", None)):
            row = None if text is None else {"id": 4, "content": text}
            event = {"before": None, "after": row, "source": {"table": "reviews"}, "op": op}
            send(worker, avro_, (b'{"id": 4}', framed(datum(ENVELOPE, event), 7)))
        expected = {"done": 6, "deleted": 3, "dropped": 3, "partial": 1}
        worker.wait(lambda: worker.get("/status")[1]["totals"] == expected, 30)
        worker.wait(lambda: all(worker.lag(topic) == 0 for topic in (cdc, canal, plain, avro_)))
        metrics = worker.get("/metrics")[1]
        for reason in ("no_review", "delete_without_key", "null_value"):
            assert f'rexstream_dropped_total{{reason="{reason}"}} 1.0' in metrics
        # The letter of the row goes back; only its row runs again.
        (letter,) = worker.dead_letters()
        replay = [sys.executable, "-m", "consumer", "dead-letters", "list", "--config", str(worker.config_file)]
        listed = subprocess.run(replay, capture_output=True, text=True, env=dict(os.environ), check=True).stdout
        assert "row 2 of 3" in listed
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    assert (said(letter)["rexstream-dlq-class"], said(letter)["rexstream-dlq-rows"]) == ("EmptyText", "2")
    for task in ("sentiment", "product_features"):
        by_key: dict[bytes | None, list[dict[str, Any] | None]] = {}
        for each in messages(worker.bootstrap, f"{base}.{task}"):
            value = each.value()
            by_key.setdefault(each.key(), []).append(None if value is None else json.loads(value))
        ids = {its: [each and each["event_id"] for each in found] for its, found in by_key.items()}
        canal_ids = [f"{canal}-0-0#1", f"{canal}-0-0#3"]
        assert {its: found for its, found in ids.items() if its is not None} == {
            key(0): ["0"],
            key(1): ["1", None, None],
            key(2): ["2", "2"],
            b"p": ["p"],
            b'{"id": 4}': ["4", None],
        }
        assert sorted(map(str, ids[None]))[0].replace("-1-0#", "-0-0#") == canal_ids[0]
        assert len(ids[None]) == 2
        (first,) = by_key[key(0)]
        assert first is not None
        assert first["created_at"] == 1_700_000_000_123
        assert (first["attributes"], first["source"]) == ({"stars": "5", "table": "reviews"}, None)
        assert first["warnings"] == []
