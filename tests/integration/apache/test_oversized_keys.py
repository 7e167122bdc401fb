"""Records whose key no output topic takes: each becomes a dead letter without it, in both modes, and nothing waits."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from worker_run import Run, expected, ids, reviews

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stub_server import StubServer

MODES = pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
KEY = b"k" * 1_500_000
SMALL_SEGMENT = {"max_message_bytes": "8000000", "segment_bytes": "1048576"}


def send(run: Run, key: bytes, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": run.bootstrap, "message.max.bytes": 8_000_000})
    producer.produce(run.input, value, key, headers=[("note", b"n" * 2000)])
    assert producer.flush(30) == 0


@pytest.mark.parametrize(
    ("mode", "limits"),
    [
        pytest.param("at_least_once", {}, id="at least once"),
        pytest.param("exactly_once", {}, id="exactly once"),
        pytest.param("at_least_once", SMALL_SEGMENT, id="at least once, a small segment"),
        pytest.param("exactly_once", {"max_message_bytes": "800"}, id="exactly once, 800 bytes"),
    ],
)
def test_a_key_too_large_for_the_topics_blocks_nothing(
    mode: str,
    limits: dict[str, str],
    apache_kafka: str,
    new_topic: Callable[..., str],
    server: StubServer,
    tmp_path: Path,
) -> None:
    """Of a good event and of a bad one: the key is why both are dead letters. Their neighbours have their results."""
    topics = [
        new_topic(partitions=1, max_message_bytes="8000000"),
        new_topic(partitions=1),
        new_topic(partitions=1, **limits),
    ]
    delivery = {"mode": mode, "transaction_timeout_ms": 5000}
    run = Run(
        apache_kafka,
        topics,
        server,
        tmp_path,
        delivery=delivery,
        kafka={"client": {"session.timeout.ms": 6000, "compression.type": "none"}},
    )
    try:
        run.start()
        run.send(reviews(5))
        send(run, KEY, json.dumps({"event_id": "wide", "text": "好用"}).encode())
        send(run, KEY, b"{")
        run.send(reviews(5, 5))
        run.wait_for_results(20)
        run.wait(lambda: run.lag() == 0)
        assert run.end() == 0
    finally:
        run.kill()
    assert ids(run.results()) == expected(10)
    letters = [
        (message, {name: (value or b"").decode() for name, value in headers_of(message)})
        for message in run.dead_letters()
    ]
    assert [said["rexstream-dlq-class"] for _, said in letters] == ["KeyTooLarge", "KeyTooLarge"]
    for message, said in letters:
        assert message.key() is None
        assert message.value() is None
        assert said["rexstream-dlq-key-omitted"] == str(len(KEY))
        assert said["rexstream-dlq-key-sha256"] == hashlib.sha256(KEY).hexdigest()
        assert said["rexstream-dlq-headers-omitted"]
        assert said["__dlq.errors.offset"] in ("5", "6")
        assert ("__dlq.errors.message" in said) == (limits.get("max_message_bytes") != "800")


@MODES
def test_where_even_the_smallest_dead_letter_does_not_fit_the_log_names_topic_and_limit(
    mode: str, apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """It waits, with few tries, and is there once the limit is raised."""
    topics = [new_topic(partitions=1), new_topic(partitions=1), new_topic(partitions=1, max_message_bytes="200")]
    delivery = {"mode": mode, "transaction_timeout_ms": 5000}
    run = Run(apache_kafka, topics, server, tmp_path, delivery=delivery)
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    try:
        run.start()
        run.send([("k", b"{")])
        run.wait(lambda: "output" in run.get("/status")[1]["paused"])
        said = [line for line in run.lines() if line["level"] == "error" and "max.message.bytes" in json.dumps(line)]
        assert said
        assert run.dead in json.dumps(said[0])
        assert len([line for line in run.lines() if line.get("code") == "MSG_SIZE_TOO_LARGE"]) < 40
        raised = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", run.dead, incremental_configs=[raised])
        admin.incremental_alter_configs([resource])[resource].result(30)
        run.wait(lambda: run.lag() == 0)
        assert run.end() == 0
    finally:
        run.kill()
    (letter,) = run.dead_letters()
    assert dict(headers_of(letter))["rexstream-dlq-class"] == b"InvalidJson"
