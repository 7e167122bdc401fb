"""The Kafka runtime on a real broker: what librdkafka's mock cluster cannot show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from runtime_harness import Cluster, Worker, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION = {"session.timeout.ms": 6000}
KIP_848 = {"group.protocol": "consumer"}
MODES = pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])


@MODES
def test_lag_reaches_zero_behind_transaction_markers_and_aborted_records(
    mode: str,
    apache_kafka: str,
    cluster: Cluster,
    new_topic: Callable[..., str],
    start: Callable[..., Worker],
    group: str,
) -> None:
    """Only committed records arrive; the end is committed although no record stands there, also when idle."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    producer = Producer({"bootstrap.servers": apache_kafka, "transactional.id": group})
    producer.init_transactions()

    def transaction(commit: bool) -> None:
        producer.begin_transaction()
        for number in range(5):
            producer.produce(topic, b"%d" % number, key=b"k")
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()

    for commit in (True, False, True):
        transaction(commit)
    worker = start(topic, output, group, SESSION, echo=True, lag_seconds=0.2, mode=mode)
    eventually(lambda: cluster.committed(group, topic, 1) == [18])  # 15 records and 3 markers
    eventually(lambda: list(worker.runtime.status().lag.values()) == [0])
    transaction(False)
    eventually(lambda: cluster.committed(group, topic, 1) == [24])
    assert worker.runtime.drain(10.0)
    assert [int(value) for value in cluster.values(output, 1)] == [*range(5), *range(5)]


@MODES
def test_of_batches_that_the_broker_refuses_only_the_large_records_become_dead_letters(
    mode: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """The topic's max.message.bytes is far below the client's batches; a dead letter too large loses its value."""
    topic, output = new_topic("in", 1), new_topic("out", 1, max_message_bytes="3000")
    dead = new_topic("dead", 1, max_message_bytes="3000")
    cluster.send(topic, 300, 1, value=b"x" * 100)
    cluster.send(topic, 1, 1, value=b"z" * 6000)
    worker = start(topic, output, group, {**SESSION, "compression.type": "none"}, dead=dead, mode=mode)
    large = (0, 150, 151, 299)
    for record in worker.wait(301):
        worker.finish(record, b"y" * 5000 if record.offset in large else None)
    assert worker.runtime.drain(120.0)
    assert sorted(int(value.split()[0]) for value in cluster.values(output, 1)) == sorted({*range(300)} - {*large})
    found = cluster.read(dead, 1)[0]
    ids = sorted(dict(headers)["rexstream-dlq-id"].decode() for _, _, headers in found)
    assert ids == sorted(f"{topic}-0-{offset}" for offset in (*large, 300))
    assert [value for _, value, headers in found if "rexstream-dlq-value-omitted" in dict(headers)] == [None]
    assert cluster.committed(group, topic, 1) == [301]


def test_records_of_a_transaction_that_hangs_are_lag(
    apache_kafka: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """Nobody may read them yet, and they wait all the same: with them hidden, a standstill would look like its end."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    producer = Producer({"bootstrap.servers": apache_kafka, "transactional.id": group})
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(5):
        producer.produce(topic, b"%d" % number)
    producer.flush()
    worker = start(topic, output, group, SESSION, echo=True, lag_seconds=0.2)
    eventually(lambda: list(worker.runtime.status().lag.values()) == [5])
    assert worker.runtime.status().lag_ages.keys() == worker.runtime.status().lag.keys()
    producer.commit_transaction()
    eventually(lambda: list(worker.runtime.status().lag.values()) == [0])
    assert worker.runtime.drain(10.0)
    assert len(cluster.values(output, 1)) == 5
