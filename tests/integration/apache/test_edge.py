"""The Kafka edge on a real broker: what librdkafka's mock cluster cannot show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from edge_harness import Cluster, Worker, eventually

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
    eventually(lambda: list(worker.edge.status().lag.values()) == [0])
    transaction(False)
    eventually(lambda: cluster.committed(group, topic, 1) == [24])
    assert worker.edge.drain(10.0)
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
    assert worker.edge.drain(120.0)
    assert sorted(int(value.split()[0]) for value in cluster.values(output, 1)) == sorted({*range(300)} - {*large})
    found = cluster.read(dead, 1)[0]
    ids = sorted(dict(headers)["rexstream-dlq-id"].decode() for _, _, headers in found)
    assert ids == sorted(f"{topic}-0-{offset}" for offset in (*large, 300))
    assert [value for _, value, headers in found if "rexstream-dlq-value-omitted" in dict(headers)] == [None]
    assert cluster.committed(group, topic, 1) == [301]


@pytest.mark.parametrize(
    "client", [pytest.param(SESSION, id="cooperative-sticky"), pytest.param(KIP_848, id="kip-848")]
)
def test_a_partition_that_left_while_paused_is_read_when_it_comes_back(
    client: dict[str, Any], cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """librdkafka keeps a pause beyond the assignment; the reason for it may be gone by then."""
    topic, output = new_topic("in", 2), new_topic("out", 2)
    first = start(topic, output, group, client, echo=True)
    eventually(lambda: len(first.edge.status().assignment) == 2)
    first.edge.pause("outage")
    second = start(topic, output, group, client, echo=True)
    eventually(lambda: len(second.edge.status().assignment) == 1)
    first.edge.resume("outage")
    assert second.edge.drain(20.0)
    eventually(lambda: len(first.edge.status().assignment) == 2)
    cluster.send(topic, 20, 2)
    eventually(lambda: cluster.committed(group, topic, 2) == [10, 10])


@pytest.mark.parametrize(
    "client", [pytest.param(SESSION, id="cooperative-sticky"), pytest.param(KIP_848, id="kip-848")]
)
def test_partitions_are_handed_over_without_a_loss_or_a_double(
    client: dict[str, Any],
    cluster: Cluster,
    new_topic: Callable[..., str],
    start: Callable[..., Worker],
    group: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first member finishes what it holds while the revocation waits; the second reads only what came later."""
    caplog.set_level("INFO")
    topic, output = new_topic("in"), new_topic("out")
    first = start(topic, output, group, client)
    eventually(lambda: len(first.edge.status().assignment) == 4)
    cluster.send(topic, 400, 4, keys=40)
    held = first.wait(400)
    second = start(topic, output, group, client, echo=True)
    eventually(lambda: "revoking" in caplog.text)
    for record in held:
        first.finish(record)
    eventually(lambda: len(second.edge.status().assignment) == 2)
    first.echo = True
    cluster.send(topic, 400, 4, keys=40)
    eventually(lambda: sum(cluster.committed(group, topic, 4)) == 800)
    assert first.edge.drain(20.0)
    assert second.edge.drain(20.0)
    assert sorted(int(value) for value in cluster.values(output, 4)) == sorted([*range(400)] * 2)
    assert {record.offset >= 100 for record in second.records} == {True}


def test_a_kip_848_member_without_partitions_has_joined(
    new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """It sees no callback, and is neither unready nor taken for one that no broker answers."""
    topic = new_topic("in", 1)
    first = start(topic, "out", group, KIP_848)
    eventually(lambda: len(first.edge.status().assignment) == 1)
    second = start(topic, "out", group, KIP_848, join_seconds=3.0)
    eventually(lambda: second.edge.status().joined or second.fatal)
    assert not second.fatal
    assert not second.edge.status().assignment


@pytest.mark.parametrize(
    "client", [pytest.param(SESSION, id="cooperative-sticky"), pytest.param(KIP_848, id="kip-848")]
)
def test_a_consumer_that_is_given_up_is_replaced_and_its_records_come_again(
    client: dict[str, Any],
    cluster: Cluster,
    new_topic: Callable[..., str],
    start: Callable[..., Worker],
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was in flight is read again by the one that takes its place, and answered once."""
    topic, output = new_topic("in"), new_topic("out")
    worker = start(topic, output, group, client, mode="exactly_once", echo=True)
    cluster.send(topic, 200, 4)
    eventually(lambda: sum(cluster.committed(group, topic, 4)) == 200)
    worker.echo = False
    cluster.send(topic, 100, 4)
    worker.wait(300)
    verdicts = [True]
    monkeypatch.setattr(worker.edge._source._stalled, "look", lambda: bool(verdicts) and verdicts.pop())
    eventually(lambda: worker.observed.counts["consumer STALLED"] == 1)
    worker.echo = True
    eventually(lambda: sum(cluster.committed(group, topic, 4)) == 300, 60)
    assert worker.edge.drain(20.0)
    assert worker.fatal == []
    values = sorted(int(value.split()[0]) for value in cluster.values(output, 4))
    assert values == sorted([*range(200), *range(100)])
