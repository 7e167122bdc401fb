"""Records that a topic refuses for what they are, though not for their size: they block nothing, in both modes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from worker_run import Run, expected, ids, reviews

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from confluent_kafka import Message
    from stub_server import StubServer

DAY_MS = 24 * 3600 * 1000


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
def test_what_compacted_topics_and_bounds_of_time_refuse_blocks_nothing(
    mode: str, apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """An event without a key, a bad record without one, and one from yesterday; their neighbours have their results."""
    topics = [
        new_topic(partitions=1),
        new_topic(partitions=1, cleanup_policy="compact"),
        new_topic(partitions=1, cleanup_policy="compact", message_timestamp_before_max_ms="3600000"),
    ]
    run = Run(apache_kafka, topics, server, tmp_path, delivery={"mode": mode})
    yesterday = int(time.time() * 1000) - DAY_MS
    producer = Producer({"bootstrap.servers": apache_kafka})
    try:
        run.start()
        run.send(reviews(5))
        producer.produce(run.input, json.dumps({"event_id": "keyless", "text": "好用"}))
        producer.produce(run.input, b"{")
        producer.produce(run.input, b"{", b"old", timestamp=yesterday)
        assert producer.flush(30) == 0
        run.send(reviews(5, 5))
        run.wait_for_results(20)
        run.wait(lambda: run.lag() == 0)
        assert run.end() == 0
    finally:
        run.kill()
    assert ids(run.results()) == expected(10)
    letters = {
        (said(letter)["__dlq.errors.offset"], said(letter)["rexstream-dlq-class"]) for letter in run.dead_letters()
    }
    assert letters == {("5", "ResultWithoutKey"), ("6", "InvalidJson"), ("7", "InvalidJson")}
    assert len(run.dead_letters()) == 4
    for letter in run.dead_letters():
        assert letter.value() is not None
        assert (letter.key() == b"old") != ("rexstream-dlq-key-added" in said(letter))
        assert (letter.key() == b"old") == (said(letter).get("rexstream-original-timestamp") == str(yesterday))


def said(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in headers_of(message)}
