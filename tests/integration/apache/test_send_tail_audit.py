"""``send``, ``tail`` and the audit on a real Apache Kafka."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from topic_audit import audit

from consumer.cli import cli
from consumer.kafka.clients.cluster import is_embedded
from consumer.kafka.tools.reader import read_to_end
from consumer.local.partition_budget import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_a_real_cluster_is_not_taken_for_the_embedded_one(apache_kafka: str) -> None:
    """Only librdkafka's mock cluster is embedded."""
    assert not is_embedded(apache_kafka)


def test_all_of_a_large_file_arrives_where_the_java_client_would_put_it(
    apache_kafka: str, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    """More than 2 MB a partition are taken here, every record is acknowledged, and keys go by murmur2."""
    topic = new_topic(partitions=3)
    path = tmp_path / "reviews.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": "电池撑了两天" * 300, "product_id": f"p-{number % 7}"}) + "\n" for number in range(800)
        )
    )
    result = run("send", "-b", apache_kafka, "--topic", topic, "--input", str(path), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["acknowledged"] == 800
    messages = list(read_to_end(apache_kafka, topic))
    assert len(messages) == 800
    assert sum(len(message.value() or b"") for message in messages) > 3 * 2 * 1024 * 1024
    assert all(message.partition() == partition_of(message.key() or b"", 3) for message in messages)


def test_tail_leaves_no_trace_and_shows_no_aborted_record(apache_kafka: str, new_topic: Callable[..., str]) -> None:
    """A tail reads committed records only, past the markers of transactions, and makes no consumer group."""
    topic = new_topic("results", 1)
    producer = Producer({"bootstrap.servers": apache_kafka, "transactional.id": topic})
    producer.init_transactions(30)
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        producer.produce(topic, json.dumps({"event_id": f"e-{number}", "task": "t", "extractions": []}).encode())
        producer.flush(10)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    result = run("tail", "-b", apache_kafka, "--topic", topic, "--from", "beginning", "--limit", "2", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["event_id"] for line in result.stdout.splitlines()] == ["e-0", "e-2"]
    assert [json.loads(message.value() or b"")["event_id"] for message in read_to_end(apache_kafka, topic)] == [
        "e-0",
        "e-2",
    ]
    groups = AdminClient({"bootstrap.servers": apache_kafka}).list_consumer_groups().result(30).valid
    assert "rexstream-reader" not in {group.group_id for group in groups}


def test_an_audit_counts_what_is_there_and_names_what_is_missing(
    apache_kafka: str, new_topic: Callable[..., str]
) -> None:
    """Results, dead letters, copies and gaps of a topic are told apart."""
    topic, output, dead = new_topic("raw", 1), new_topic("out", 2), new_topic("dead", 1)
    producer = Producer({"bootstrap.servers": apache_kafka, "enable.idempotence": True})
    for value in (b"0", b"1", b"2", b"3", None):
        producer.produce(topic, value)

    def place(offset: int) -> dict[str, object]:
        return {"topic": topic, "partition": 0, "offset": offset}

    for offset in (0, 1, 1):
        result = {"result_id": f"r{offset}", "task": "t", "record": place(offset), "extractions": []}
        producer.produce(output, json.dumps(result).encode())
    headers = [(f"__dlq.errors.{name}", str(value).encode()) for name, value in place(2).items()]
    producer.produce(
        dead, b"2", headers=[*headers, ("rexstream-dlq-stage", b"decode"), ("rexstream-dlq-class", b"InvalidJson")]
    )
    assert producer.flush(30) == 0
    found = audit(apache_kafka, topic, [output], dead, tasks=["t"])
    assert (found.inputs, found.null_values, found.answered) == (5, 1, 3)
    assert found.results == {"t": 3}
    assert found.dead_letters == {"decode/InvalidJson": 1}
    assert found.missing == ("0-3 t",)
    assert found.duplicates == 1
    assert not found.complete
