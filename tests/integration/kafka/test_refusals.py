"""Outputs that brokers refuse: nothing is dropped, nothing is committed past them, only size makes a dead letter.

The mock cluster knows no max.message.bytes of its own; refusals by the broker are injected, so which record was the
large one cannot be told by it. The unit tests of the publisher and the tests on Apache Kafka have a broker that can.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from runtime_harness import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.broker

PRODUCE, OFFSET_COMMIT = 0, 8
MESSAGE_TOO_LARGE, TOPIC_AUTHORIZATION_FAILED = 10, 29


def test_a_refused_batch_is_produced_again_in_smaller_ones(
    own_broker: Any, cluster_of: Callable[[Any], Any], start: Callable[..., Any]
) -> None:
    """librdkafka fails every record of a batch that is too large; none of them is taken for too large itself."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(1, "in"), own_broker.topic(1, "out")
    cluster.send(topic, 300, 1)
    worker = start(own_broker.bootstrap, topic, output, "batch", order="partition")
    records = worker.wait(300)
    own_broker.order(f"fail {PRODUCE} {MESSAGE_TOO_LARGE}")
    for record in records:
        worker.finish(record)
    assert worker.runtime.drain(20.0)
    # Not in order: a later batch that was under way is accepted while the first is refused.
    assert sorted(int(value) for value in cluster.values(output, 1)) == list(range(300))
    assert cluster.committed("batch", topic, 1) == [300]


def test_a_result_too_large_for_its_topic_becomes_a_dead_letter(
    mock_broker: Any, cluster: Any, start: Callable[..., Any]
) -> None:
    """Its siblings are published, the dead letter holds the original record, and everything is committed."""
    topic, output, dead = mock_broker.topic(2, "in"), mock_broker.topic(2, "out"), mock_broker.topic(2, "dead")
    cluster.send(topic, 10, 2)
    worker = start(mock_broker.bootstrap, topic, output, "large", dead=dead, client={"message.max.bytes": 4000})
    for record in worker.wait(10):
        worker.finish(record, b"x" * 5000 if record.offset == 2 else None)
    assert worker.runtime.drain(20.0)
    assert len(cluster.values(output, 2)) == 8
    found = cluster.read(dead, 2)
    assert [int(value) for number in (0, 1) for _, value, _ in found[number]] == [4, 5]
    for number, ((key, value, headers),) in found.items():
        assert key == b"key-%d" % int(value)
        assert headers[0] == ("n", b"1")
        assert dict(headers)["rexstream-dlq-id"] == f"{topic}-{number}-2".encode()
        assert dict(headers)["rexstream-dlq-stage"] == b"produce"
    assert cluster.committed("large", topic, 2) == [5, 5]


def test_a_dead_letter_too_large_is_written_without_its_value(
    mock_broker: Any, cluster: Any, start: Callable[..., Any]
) -> None:
    """It says how many bytes were left out."""
    topic, dead = mock_broker.topic(1, "in"), mock_broker.topic(1, "dead")
    cluster.send(topic, 2, 1, value=b"x" * 6000)
    worker = start(mock_broker.bootstrap, topic, "out", "omit", dead=dead, client={"message.max.bytes": 4000})
    for record in worker.wait(2):
        worker.finish(record)
    assert worker.runtime.drain(20.0)
    for key, value, headers in cluster.read(dead, 1)[0]:
        assert key is not None
        assert value is None
        assert dict(headers)["rexstream-dlq-value-omitted"] == b"6002"
    assert cluster.committed("omit", topic, 1) == [2]


def test_a_key_too_large_for_every_topic_blocks_none(mock_broker: Any, cluster: Any, start: Callable[..., Any]) -> None:
    """Here the client itself refuses it: the result, its dead letter, and that without value and headers."""
    topic, dead = mock_broker.topic(1, "in"), mock_broker.topic(1, "dead")
    producer = Producer({"bootstrap.servers": mock_broker.bootstrap})
    producer.produce(topic, b"v", b"k" * 5000, headers=[("h", b"h" * 500)])
    producer.produce(topic, b"w", b"short")
    assert producer.flush(20) == 0
    worker = start(mock_broker.bootstrap, topic, "out", "keys", dead=dead, client={"message.max.bytes": 4000})
    for record in worker.wait(2):
        worker.finish(record)
    assert worker.runtime.drain(20.0)
    ((key, value, headers),) = cluster.read(dead, 1)[0]
    assert (key, value) == (None, None)
    assert dict(headers)["rexstream-dlq-key-omitted"] == b"5000"
    assert dict(headers)["rexstream-dlq-key-sha256"] == hashlib.sha256(b"k" * 5000).hexdigest().encode()
    assert dict(headers)["rexstream-dlq-id"] == f"{topic}-0-0".encode()
    assert cluster.committed("keys", topic, 1) == [2]


def test_outputs_wait_while_their_topic_refuses_them(
    own_broker: Any,
    cluster_of: Callable[[Any], Any],
    start: Callable[..., Any],
) -> None:
    """A forbidden topic pauses consumption and holds the offsets; when it is allowed again everything is published."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(1, "in"), own_broker.topic(1, "out")
    cluster.send(topic, 100, 1)
    worker = start(own_broker.bootstrap, topic, output, "forbidden", order="partition")
    records = worker.wait(100)
    own_broker.order(f"fail {PRODUCE}" + f" {TOPIC_AUTHORIZATION_FAILED}" * 100)
    for record in records:
        worker.finish(record)
    eventually(lambda: worker.runtime.status().blocked_outputs.keys() == {output})
    eventually(lambda: worker.runtime.status().paused == ("output",))
    assert cluster.committed("forbidden", topic, 1)[0] <= 0
    assert worker.runtime.status().in_flight_events == 100
    own_broker.order(f"forget {PRODUCE}")
    eventually(lambda: cluster.committed("forbidden", topic, 1) == [100])
    eventually(lambda: worker.runtime.status().paused == ())
    assert [int(value) for value in cluster.values(output, 1)] == list(range(100))


def test_a_broker_outage_is_waited_out(
    own_broker: Any,
    cluster_of: Callable[[Any], Any],
    start: Callable[..., Any],
) -> None:
    """Results that finish while no broker answers are published when one is back; no thread dies of it."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(2, "in"), own_broker.topic(2, "out")
    cluster.send(topic, 100, 2)
    # A session that outlives the outage: else the partitions are lost, rightly, and read again.
    worker = start(own_broker.bootstrap, topic, output, "outage", client={"session.timeout.ms": 30_000})
    records = worker.wait(100)
    own_broker.order("down")
    for record in records:
        worker.finish(record)
    eventually(lambda: any(name.startswith("producer") for name in worker.observed.counts))
    assert worker.observed.counts["durable"] == 0
    own_broker.order("up")
    eventually(lambda: worker.observed.counts["durable"] == 100)
    eventually(lambda: cluster.committed("outage", topic, 2) == [50, 50])
    assert not worker.fatal
    assert sorted(int(value) for value in cluster.values(output, 2)) == list(range(100))


def test_a_failed_commit_is_tried_again(
    own_broker: Any,
    cluster_of: Callable[[Any], Any],
    start: Callable[..., Any],
) -> None:
    """A coordinator that refuses a commit costs a second, not the offsets and not the thread."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(1, "in"), own_broker.topic(1, "out")
    worker = start(own_broker.bootstrap, topic, output, "again", echo=True)
    eventually(lambda: cluster.committed("again", topic, 1) == [0])
    own_broker.order(f"fail {OFFSET_COMMIT}" + f" {TOPIC_AUTHORIZATION_FAILED}" * 2)
    cluster.send(topic, 5, 1)
    eventually(lambda: cluster.committed("again", topic, 1) == [5])
    assert any(name.startswith("commit_failed") for name in worker.observed.counts)
    assert not worker.fatal


def test_a_drain_whose_last_commit_fails_says_so(
    own_broker: Any, cluster_of: Callable[[Any], Any], start: Callable[..., Any]
) -> None:
    """Everything is published and the offsets are not: the successor repeats it, and nobody may take that for clean."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(1, "in"), own_broker.topic(1, "out")
    cluster.send(topic, 5, 1)
    worker = start(own_broker.bootstrap, topic, output, "unclean")
    records = worker.wait(5)
    own_broker.order(f"fail {OFFSET_COMMIT}" + f" {TOPIC_AUTHORIZATION_FAILED}" * 100)
    for record in records:
        worker.finish(record)
    eventually(lambda: worker.observed.counts["durable"] == 5)
    assert not worker.runtime.drain(4.0)
    assert not worker.fatal
    own_broker.order(f"forget {OFFSET_COMMIT}")
    assert cluster.committed("unclean", topic, 1)[0] <= 0


def test_a_drain_with_nothing_left_to_commit_needs_no_commit(
    own_broker: Any, cluster_of: Callable[[Any], Any], start: Callable[..., Any]
) -> None:
    """What failed and was mended before does not count, nor what would fail now."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(1, "in"), own_broker.topic(1, "out")
    cluster.send(topic, 1, 1)
    worker = start(own_broker.bootstrap, topic, output, "clean", echo=True)
    own_broker.order(f"fail {OFFSET_COMMIT} {TOPIC_AUTHORIZATION_FAILED}")
    eventually(lambda: worker.observed.counts["committed"] == 1)
    assert cluster.committed("clean", topic, 1) == [1]
    assert any(name.startswith("commit_failed") for name in worker.observed.counts)
    own_broker.order(f"fail {OFFSET_COMMIT}" + f" {TOPIC_AUTHORIZATION_FAILED}" * 100)
    assert worker.runtime.drain(20.0)
    own_broker.order(f"forget {OFFSET_COMMIT}")


def test_a_drain_ends_although_no_broker_answers(
    own_broker: Any, cluster_of: Callable[[Any], Any], start: Callable[..., Any]
) -> None:
    """The last commit, the farewell and the flush are given up in bounded time, and drain says that it failed."""
    cluster = cluster_of(own_broker)
    topic, output = own_broker.topic(1, "in"), own_broker.topic(1, "out")
    cluster.send(topic, 10, 1)
    worker = start(own_broker.bootstrap, topic, output, "gone", client={"session.timeout.ms": 30_000})
    records = worker.wait(10)
    own_broker.order("down")
    for record in records[:5]:
        worker.finish(record)
    assert not worker.runtime.drain(0.5)
    own_broker.order("up")
    assert cluster.committed("gone", topic, 1)[0] <= 0
