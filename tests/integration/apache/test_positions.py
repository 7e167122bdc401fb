"""Committed offsets that the log no longer has, or does not have yet: expired records, a topic made anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from runtime_harness import Cluster, Worker, eventually, running

from consumer.delivery.done_note import note
from consumer.kafka.clients.errors import NoSuchOffset

if TYPE_CHECKING:
    from collections.abc import Callable

    from apache_kafka import ApacheKafka

SESSION = {"session.timeout.ms": 6000}
MODES = pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])


def numbers(cluster: Cluster, topic: str) -> list[int]:
    return sorted(int(value) for value in cluster.values(topic, 1))


def commit(cluster: Cluster, group: str, topic: str, offset: int) -> None:
    """As a worker commits that had one record in flight there, and all that follow done."""
    noted = note(offset, [offset], offset + 100, None, int(time.time() * 1000) + 60_000)
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset, metadata=noted)], asynchronous=False)
    consumer.close()


@MODES
def test_records_that_expired_while_no_worker_ran_are_passed_over(
    mode: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """The next worker goes on with the first record that is left: none comes twice, and the lag reaches zero."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 10, 1)
    first = start(topic, output, group, SESSION, echo=True, mode=mode)
    eventually(lambda: cluster.committed(group, topic, 1) == [10])
    assert cluster.leader_epochs(group, topic, 1) == [0], "that of the topic's first leader"
    assert first.runtime.drain(10.0)
    cluster.send(topic, 30, 1)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 35)]).values():
        deleted.result(30)
    second = start(topic, output, group, SESSION, echo=True, mode=mode)
    eventually(lambda: cluster.committed(group, topic, 1) == [40])
    assert [record.offset for record in second.records] == [*range(35, 40)]
    assert second.runtime.drain(10.0)
    assert numbers(cluster, output) == sorted([*range(10), *range(25, 30)])


@MODES
def test_an_offset_beyond_the_end_starts_at_the_earliest_record(
    mode: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """As after a topic was made anew under its name: everything in it is new to the group, and commits go back."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 5, 1)
    commit(cluster, group, topic, 500)
    worker = start(topic, output, group, SESSION, echo=True, mode=mode)
    eventually(lambda: cluster.committed(group, topic, 1) == [5])
    assert worker.runtime.drain(10.0)
    assert numbers(cluster, output) == [*range(5)]


@pytest.mark.parametrize(
    "client",
    [pytest.param(SESSION, id="cooperative-sticky"), pytest.param({"group.protocol": "consumer"}, id="kip-848")],
)
def test_what_is_done_behind_a_record_that_waits_is_not_read_again(
    client: dict[str, Any], cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """The commit says so, until a tool commits in its place, be it the same offset: then all from there on is read."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 20, 1)
    first = start(topic, output, group, client, order="none")
    for record in first.wait(20):
        if record.offset != 7:
            first.finish(record)
    eventually(lambda: [each and each.count for each in cluster.noted(group, topic, 1)] == [12])
    assert not first.runtime.drain(0.5)
    second = start(topic, output, group, client, order="none")
    assert [record.offset for record in second.wait(1, 60)] == [7]
    assert not second.runtime.drain(0.5)
    assert cluster.committed(group, topic, 1) == [7]
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    reset = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 7)])
    admin.alter_consumer_group_offsets([reset])[group].result(30)
    third = start(topic, output, group, client, echo=True)
    eventually(lambda: cluster.committed(group, topic, 1) == [20], 60)
    assert [record.offset for record in third.records] == [*range(7, 20)]
    assert third.runtime.drain(10.0)
    assert numbers(cluster, output) == sorted([*range(20), *range(8, 20)])


@MODES
def test_whoever_wants_no_record_twice_can_have_the_worker_end_instead(
    mode: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """auto.offset.reset: error. The offset stays as it is, for an operator to move."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 5, 1)
    commit(cluster, group, topic, 500)
    worker = start(topic, output, group, {**SESSION, "auto.offset.reset": "error"}, echo=True, mode=mode)
    eventually(lambda: worker.fatal)
    assert isinstance(worker.fatal[0], NoSuchOffset)
    assert str(worker.fatal[0]).startswith(f"{topic}-0: ")
    assert worker.records == []
    assert cluster.committed(group, topic, 1) == [500]


@MODES
def test_a_topic_that_is_made_anew_under_a_running_worker(
    mode: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """While it has fewer records than the old one had, a restart is not needed.

    With more, Kafka's clients go on at their position, past records that nobody has read: README says to stop first.
    """
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 20, 1)
    worker = start(topic, output, group, SESSION, echo=True, mode=mode)
    eventually(lambda: cluster.committed(group, topic, 1) == [20])
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    admin.create_topics([NewTopic(topic, 1)])[topic].result(30)
    eventually(lambda: topic in admin.list_topics(timeout=10).topics)
    cluster.send(topic, 5, 1)
    eventually(lambda: cluster.committed(group, topic, 1) == [5], 90)
    assert worker.fatal == []
    assert worker.runtime.drain(10.0)
    assert numbers(cluster, output) == sorted([*range(20), *range(5)])


def test_a_log_that_lost_its_end_and_got_another_while_no_worker_ran_loses_no_record(
    private_kafka: ApacheKafka,
) -> None:
    """The note names offsets whose records are others now, with old times: their leader epoch is newer than its own."""
    bootstrap = private_kafka.bootstrap_servers
    cluster = Cluster(bootstrap)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics([NewTopic(topic, 1) for topic in ("in", "out")]).values():
        created.result(30)

    def send(values: range) -> None:
        """Each in a batch of its own, in 2020."""
        producer = Producer({"bootstrap.servers": bootstrap})
        for value in values:
            producer.produce("in", str(value).encode(), timestamp=1_600_000_000_000)
            assert producer.flush(30) == 0

    send(range(20))
    with running() as run:
        first = run(Worker(bootstrap, "in", "out", "group", client=SESSION, order="none"))
        for record in first.wait(20):
            if record.offset != 3:
                first.finish(record)
        eventually(lambda: [each and each.count for each in cluster.noted("group", "in", 1)] == [16])
        assert not first.runtime.drain(0.5)
        segment = private_kafka.log_of("in", 0)
        private_kafka.kill()
        content, end = segment.read_bytes(), 0
        for _ in range(12):
            end += 12 + int.from_bytes(content[end + 8 : end + 12], "big")  # an offset, a length, and so many bytes
        segment.write_bytes(content[:end])
        private_kafka.start()
        send(range(100, 118))
        second = run(Worker(bootstrap, "in", "out", "group", client=SESSION, echo=True))
        eventually(lambda: cluster.committed("group", "in", 1) == [30])
        assert second.runtime.drain(10.0)
    assert {int(record.value or b"") for record in second.records} >= {3, *range(100, 118)}
    assert {int(value) for value in cluster.values("out", 1)} == {*range(20), *range(100, 118)}
