"""``rexstream run``: values as real producers send them, with odd metadata, in other encodings, packed."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, Protocol

from avro_values import RESULT_SCHEMA, messages, read_avro, said
from confluent_kafka import Producer
from worker_run import Run

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stub_server import StubServer

    from consumer.events import Header

TEXT = "外壳结实，颜色正"
ODD: tuple[dict[str, Any], ...] = (
    {"event_id": 17, "attributes": {"stars": 5, "tags": ["新", None]}},
    {"created_at": "2023-07-22T12:26:40.123+08:00", "product_id": 4.0},
    {"created_at": 253_402_300_800_000, "kind": "Review", "source": {"db": "shop"}},
    {"language": "z" * 5000, "attributes": {"a": "v" * 40_000}},
)


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


def send(run: Run, topic: str, *values: bytes, headers: Sequence[Header] = ()) -> None:
    producer = Producer({"bootstrap.servers": run.bootstrap})
    for value in values:
        producer.produce(topic, value, b"k", headers=list(headers))
    assert producer.flush(20) == 0


def test_values_of_real_producers(mock_broker: Broker, server: StubServer, runs: list[Run], tmp_path: Path) -> None:
    """Sixty records in a row with metadata of other types pause nothing and are results, which Avro's reader reads; two
    routes beside it read GB18030 and gzip, and refuse what is neither.
    """
    odd, chinese, packed, out, binary, dead = (
        mock_broker.topic(1, label) for label in ("odd", "chinese", "packed", "out", "binary", "dead")
    )
    worker = Run(
        mock_broker.bootstrap,
        (odd, out, dead),
        server,
        tmp_path,
        routes=[
            {"input": odd, "tasks": ["sentiment"], "output": binary, "output_format": "avro", "drop_headers": ["x-*"]},
            {"input": chinese, "format": "text", "encoding": "GB18030", "tasks": ["sentiment"], "output": out},
            {"input": packed, "compression": "gzip", "tasks": ["sentiment"], "output": out},
        ],
    )
    runs.append(worker)
    worker.start()
    own: list[Header] = [("ce_id", b"1"), ("Content-Type", b"text/plain"), ("X-Shop", b"7"), ("trace", b"8")]
    values = [json.dumps({"text": TEXT, **fields}, ensure_ascii=False).encode() for fields in ODD]
    send(worker, odd, *values * 15, headers=own)
    send(worker, odd, values[0], headers=[("h", b"v" * 70_000)])
    seconds = json.dumps({"text": TEXT, "created_at": 1_700_000_000}, ensure_ascii=False)
    send(worker, odd, seconds.encode(), json.dumps(seconds).encode())
    send(worker, chinese, ("\ufeff" + TEXT).encode("gb18030"), b"\xff", TEXT.encode("utf-8-sig"))
    good = gzip.compress(b"\xef\xbb\xbf" + json.dumps({"text": TEXT, "event_id": "packed"}).encode())
    bomb = gzip.compress(bytes(2_000_000))
    send(worker, packed, good, good[:-3], good + b"!", bomb, values[0])
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 65, "dead_letter": 6}, 60)
    assert worker.get("/readyz")[0] == 200
    assert worker.end() == 0

    sent = messages(worker.bootstrap, binary)
    results = [read_avro(RESULT_SCHEMA, each.value() or b"") for each in sent]
    assert len(results) == 62
    assert [result["event_id"] for result in results[:2]] == ["17", f"{odd}-0-1"]
    assert results[0]["attributes"] == {"stars": "5", "tags": '["新",null]'}
    assert results[1]["created_at"].timestamp() == 1_690_000_000.123
    assert results[1]["product_id"] == "4"
    assert (results[2]["created_at"], results[2]["source"]) == (None, None)
    dropped = [[each.split()[1] for each in result["warnings"] if "field-dropped" in each] for result in results]
    assert dropped[:4] == [[], [], ["kind", "source", "created_at"], ["language", "attributes"]]
    assert dropped[60] == ["headers"]
    assert [warning[:25] for warning in results[61]["warnings"]] == ["field-suspect: created_at"]
    names = [[name for name, _ in headers_of(each)] for each in (sent[0], sent[60])]
    ours = ["rexstream-task", "rexstream-task-fingerprint", "rexstream-result-id", "traceparent"]
    assert names == [["trace", *ours], ours]

    assert sorted(result["event_id"] for result in worker.results()) == [f"{chinese}-0-0", f"{chinese}-0-2", "packed"]
    letters = [said(letter) for letter in worker.dead_letters()]
    said_of = {letter["rexstream-dlq-class"]: letter["__dlq.errors.message"] for letter in letters}
    assert sorted(letter["rexstream-dlq-class"] for letter in letters) == sorted(
        ["InvalidEncoding", "InvalidEvent", *["InvalidGzip"] * 3, "ValueTooLarge"]
    )
    assert "not gb18030: byte 0 of 1" in said_of["InvalidEncoding"]
    assert "limits.value_bytes" in said_of["ValueTooLarge"]
    assert "it holds JSON itself" in said_of["InvalidEvent"]
    refused = {b"\xff", good[:-3], good + b"!", bomb, values[0], json.dumps(seconds).encode()}
    assert {letter.value() for letter in worker.dead_letters()} == refused
