"""A batch whose bytes changed on the broker's disk: it is noticed, named, and never committed past."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from runtime_harness import Cluster, Worker, eventually, running
from stub_server import StubServer
from worker_run import Run, expected, ids, reviews

from consumer.kafka.clients.cluster import TopicUnusable
from consumer.kafka.clients.errors import UnreadableBatch
from consumer.kafka.tools.reader import read_to_end

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import ApacheKafka

SESSION = {"session.timeout.ms": 6000}
MODES = pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])


def damage(segment: Path, text: bytes) -> None:
    """Change the one place where ``text`` stands, as a bad disk does."""
    found = segment.read_bytes()
    assert found.count(text) == 1
    with segment.open("r+b") as log:
        log.seek(found.index(text))
        log.write(b"#")


def create(cluster: Cluster, *topics: str) -> None:
    """Topics of one partition."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for created in admin.create_topics([NewTopic(topic, 1) for topic in topics]).values():
        created.result(30)


def commit(cluster: Cluster, group: str, topic: str, offset: int) -> None:
    """Move the offset of a group that has no members, as an operator does."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


@MODES
def test_a_batch_that_fails_its_checksum_ends_the_worker_with_its_place(
    mode: str, secure_kafka: ApacheKafka, group: str
) -> None:
    """What came before it is finished and committed, nothing from it on. Whoever gives it up moves the offset."""
    cluster = Cluster(secure_kafka.bootstrap_servers)
    topic, output = f"in-{group}", f"out-{group}"
    create(cluster, topic, output)
    for number in range(4):
        # A batch of its own, or several on a slow machine: the first record of one always begins a batch.
        cluster.send(topic, 10, 1, value=b"batch-%d" % number)
    damage(secure_kafka.log_of(topic, 0), b"0 batch-1")
    with running() as run:
        for _ in range(2):  # the second worker meets it again
            worker = run(Worker(cluster.bootstrap, topic, output, group, client=SESSION, echo=True, mode=mode))
            eventually(lambda: worker.fatal, 60)  # noqa: B023 - called at once
            (fatal,) = worker.fatal
            assert isinstance(fatal, UnreadableBatch)
            assert str(fatal).startswith(f"{topic}-0: the batch at offset 10 cannot be read (_BAD_MSG: ")
            assert worker.runtime.drain(20.0), "nothing is in the way of what came before"
            assert cluster.committed(group, topic, 1) == [10]
        commit(cluster, group, topic, 20)
        worker = run(Worker(cluster.bootstrap, topic, output, group, client=SESSION, echo=True, mode=mode))
        eventually(lambda: cluster.committed(group, topic, 1) == [40])
        assert worker.runtime.drain(20.0)
    texts = sorted(value.split()[1] for value in cluster.values(output, 1))
    assert texts == [b"batch-0"] * 10 + [b"batch-2"] * 10 + [b"batch-3"] * 10


def test_a_damaged_dead_letter_is_not_passed_over(secure_kafka: ApacheKafka, group: str) -> None:
    """Replay and list say where it is; without that they would leave letters out."""
    cluster = Cluster(secure_kafka.bootstrap_servers)
    topic = f"dead-{group}"
    create(cluster, topic)
    for number in range(3):
        cluster.send(topic, 10, 1, value=b"batch-%d" % number)
    damage(secure_kafka.log_of(topic, 0), b"0 batch-1")
    with pytest.raises(TopicUnusable, match=f"{topic}-0: the batch at offset 10 cannot be read"):
        list(read_to_end(cluster.bootstrap, topic))


def test_a_worker_process_ends_with_1_and_what_came_before_is_done(
    secure_kafka: ApacheKafka, group: str, tmp_path: Path
) -> None:
    """Its last words are the batch's place, and the way out."""
    cluster = Cluster(secure_kafka.bootstrap_servers)
    topics = [f"{label}-{group}" for label in ("in", "out", "dead")]
    create(cluster, *topics)
    server = StubServer()
    worker = Run(cluster.bootstrap, topics, server, tmp_path)
    try:
        for number in range(3):
            worker.send(reviews(5, 5 * number))
        damage(secure_kafka.log_of(topics[0], 0), b'"e5"')
        worker.start()
        assert worker.process.wait(60) == 1
        assert ids(worker.results()) == expected(5)
        assert cluster.committed(worker.group, topics[0], 1) == [5]
        said = next(line for line in worker.lines() if line["event"] == "the worker must end")
        assert said["kind"] == "UnreadableBatch"
        assert "the batch at offset 5 cannot be read" in said["reason"]
        assert worker.dead_letters() == []
    finally:
        worker.kill()
        server.stop()
