"""``rexstream shadow`` on Apache Kafka with Avro results and a registry."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from avro_values import RESULT_SCHEMA, framed, schema_number
from confluent_kafka import Producer
from killed_switch import KILLED_IN_ITS_SECOND_TRANSACTION, content
from registry_double import RegistryDouble
from worker_run import Run, reviews

from consumer.codecs.avro_schemas import parse_writer_schema
from consumer.codecs.outputs import RESULT_ID
from consumer.codecs.result_values import read_result
from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stub_server import StubServer

COUNT = 60
RATE = 50
"""Results in a transaction of the switch."""


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    yield double
    double.stop()


def test_avro_results_are_compared_and_switched(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, registry: RegistryDouble, tmp_path: Path
) -> None:
    """Byte by byte, with the ids of their schema; a switch that is killed and run again publishes each once."""
    topics = [new_topic(), new_topic(), new_topic(partitions=1)]
    tasks = ["sentiment", "product_features"]
    route = {"input": topics[0], "tasks": tasks, "output": topics[1], "output_format": "avro"}
    worker = Run(apache_kafka, topics, server, tmp_path, routes=[route], registry=registry.url)
    worker.send(reviews(COUNT))
    given = ["--config", str(worker.config_file), "--input", worker.input]
    base, shadow, subject = [*worker.program, "shadow"], f"{worker.output}.shadow", f"{worker.output}-value"
    switch = [*base, "switch", *given, "--yes"]

    def ended(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=worker.environment, capture_output=True, text=True, timeout=90, check=False)

    done = ended(*base, "run", *given, "--from", "earliest", "--share", "1")
    assert done.returncode == 0, done.stderr
    extracted = list(read_to_end(apache_kafka, shadow))
    assert len(extracted) == 2 * COUNT

    # As live workers would have written them: all but one, one of them otherwise, and one of a later record. One is
    # JSON, from before the route's output_format was changed.
    number = schema_number(extracted[0].value() or b"")
    schemas: dict[Any, Any] = {number: parse_writer_schema(RESULT_SCHEMA)}
    results = [read_result(each.value() or b"", schemas.__getitem__) for each in extracted[1:]]
    results[0]["extractions"] = [[{"type": "else", "span": "x", "start": 0, "end": 1, "score": 0.9}]]
    results[1]["record"]["offset"] += 10**6
    values = [framed(number, RESULT_SCHEMA, **each) for each in results[:-1]]
    producer = Producer({"bootstrap.servers": apache_kafka})
    for value in (*values, json.dumps(results[-1]).encode(), b"\0\0\0\0\x63else"):
        producer.produce(worker.output, value, b"k")
    assert producer.flush(10) == 0

    compared = ended(*base, "diff", *given, "--json")
    assert compared.returncode == 0, compared.stderr
    assert f"1 records of {worker.output} cannot be read: the registry has no schema 99" in compared.stderr
    found = json.loads(compared.stdout)["tasks"].values()
    sums = [sum(each[name] for each in found) for name in ("same", "changed", "only_old", "only_new", "same_id")]
    # That of a record behind the range is none of the run's.
    assert sums == [2 * COUNT - 3, 1, 0, 2, 2 * COUNT - 2]

    tried = ended(*switch, "--dry-run")
    assert tried.stdout == f"{2 * COUNT - 1} results would be published\n", tried.stderr
    assert f"1 records of {worker.output} cannot be read" in tried.stderr
    assert subject not in registry.subjects
    registry.closed.add(subject)
    registry.subjects[subject], registry.schemas[98] = 98, '"string"'
    refused = ended(*base, "switch", *given, "--dry-run")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"rule of subject {subject} of the schema registry forbids schema {number}" in refused.stderr
    registry.closed.clear()
    del registry.subjects[subject]
    program = [sys.executable, "-c", KILLED_IN_ITS_SECOND_TRANSACTION, *switch[len(worker.program) :]]
    killed = ended(*program, "--rate", str(RATE))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert registry.subjects[subject] == number
    switched = ended(*switch)
    assert switched.returncode == 0, switched.stderr
    assert f"{2 * COUNT - 1 - RATE} results published; " in switched.stdout
    newer = results[1]["result_id"]
    expected = [each for each in extracted if dict(headers_of(each))[RESULT_ID] != newer.encode()]
    published = [each for each in read_to_end(apache_kafka, worker.output) if each.headers()]
    assert sorted(map(content, published)) == sorted(map(content, expected))
