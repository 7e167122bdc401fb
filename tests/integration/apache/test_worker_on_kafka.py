"""A worker on a real Apache Kafka: what the embedded broker cannot show."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from topic_audit import audit
from worker_run import Run, expected, ids, reviews

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stub_server import StubServer


def test_a_value_too_large_for_the_dead_letter_topic_is_dead_lettered_without_it(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """Five megabytes come in on a topic that takes them; the dead letter says how many bytes it leaves out."""
    topics = [new_topic(partitions=1, max_message_bytes="8000000"), new_topic(), new_topic(partitions=1)]
    worker = Run(apache_kafka, topics, server, tmp_path)
    # Random, so that no compression makes it small enough after all.
    value = json.dumps({"event_id": "huge", "text": os.urandom(2_500_000).hex()}).encode()
    worker.start()
    try:
        worker.send(reviews(5))
        producer = Producer({"bootstrap.servers": apache_kafka, "message.max.bytes": 8_000_000})
        producer.produce(worker.input, value, "big")
        assert producer.flush(30) == 0
        worker.send(reviews(5, 5))
        worker.wait_for_results(20)
        worker.wait(lambda: len(worker.dead_letters()) == 1)
        worker.wait(lambda: worker.lag() == 0)
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    (letter,) = worker.dead_letters()
    said = {name: (header or b"").decode() for name, header in headers_of(letter)}
    assert letter.key() == b"big"
    assert letter.value() is None
    assert said["rexstream-dlq-value-omitted"] == str(len(value))
    assert said["rexstream-dlq-class"] == "ValueTooLarge"
    assert ids(worker.results()) == expected(10)


def test_two_workers_one_of_which_is_killed_lose_nothing(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """A rebalance, a SIGKILL and a SIGTERM under load; afterwards every record has its outcomes and lag is 0."""
    topics = [new_topic(partitions=4), new_topic(partitions=4), new_topic()]
    workers = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        workers.append(Run(apache_kafka, topics, server, folder))
    first, second = workers
    try:
        first.start()
        first.send(reviews(300))
        first.wait_for_results(50)
        second.start()
        second.wait(lambda: bool(second.get("/status")[1]["assignment"]))
        second.send(reviews(300, 300))
        first.kill()
        second.wait_for_results(1200)
        second.wait(lambda: second.lag() == 0)
        assert second.signal(signal.SIGTERM) == 0
    finally:
        for worker in workers:
            worker.kill()
    found = audit(apache_kafka, topics[0], [topics[1]], topics[2], tasks=["sentiment", "product_features"])
    assert found.complete, found
    assert found.inputs == 600
    assert found.dead_letters == {}
    assert set(ids(second.results())) == set(expected(600))


def test_exactly_once_goes_on_with_room_for_one_event_at_a_time(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """What an event holds is given back when its transaction is committed; the next one waits for that."""
    topics = [new_topic(partitions=2), new_topic(), new_topic(partitions=1)]
    worker = Run(
        apache_kafka,
        topics,
        server,
        tmp_path,
        delivery={"mode": "exactly_once"},
        environment={"REXSTREAM_LIMITS__WORK_BYTES": "1"},
    )
    worker.start()
    try:
        worker.send(reviews(30))
        worker.wait_for_results(60)
        worker.wait(lambda: worker.lag() == 0)
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    assert ids(worker.results()) == expected(30)
