"""``kafka.start`` on a real broker: which worker decides, what the group begins with, and what it never does again."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from runtime_harness import Cluster, eventually
from worker_run import Run, expected, ids, reviews

from consumer.cli import cli
from consumer.config.tree import Config, KafkaConfig
from consumer.delivery.start_offsets import start_note
from consumer.events import Partition
from consumer.kafka.consume.group_start import commit_start
from consumer.kafka.consume.start_lookup import StartLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from stub_server import StubServer

    from consumer.delivery.start_offsets import StartOffset

OLD_MS = 1_700_000_000_000
START = "2026-11-01T00:00:00Z"
START_MS = 1_793_491_200_000


def begin(bootstrap: str, group: str, topics: list[str], start: str = "latest", **client: str) -> None:
    """One worker's part in the start of its group."""
    given = {key.replace("_", "."): value for key, value in client.items()}
    deadline = time.monotonic() + 40
    kafka = KafkaConfig(bootstrap_servers=bootstrap, group_id=group, start=start, client=given)
    commit_start(Config(kafka=kafka), topics, lambda: time.monotonic() > deadline)


def fill(bootstrap: str, topic: str, *records: tuple[int, int]) -> None:
    """(partition, timestamp in milliseconds) of each record."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition, timestamp in records:
        producer.produce(topic, b"x", partition=partition, timestamp=timestamp)
    assert producer.flush(20) == 0


def notes(bootstrap: str, group: str, topic: str, partitions: int) -> list[str | None]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    found = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=10)
    consumer.close()
    return [each.metadata for each in found]


@pytest.mark.parametrize("client", [{}, {"group_protocol": "consumer"}], ids=["classic", "kip-848"])
def test_of_workers_that_start_at_once_one_decides(
    client: dict[str, str],
    apache_kafka: str,
    cluster: Cluster,
    new_topic: Callable[..., str],
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a producer sends. All return with the same offsets, and none stays behind as a member to be waited for.

    The first is held between its look and its commit until the others have begun and gone.
    """
    topic = new_topic(partitions=2)
    sending = threading.Event()
    sending.set()

    def send() -> None:
        producer = Producer({"bootstrap.servers": apache_kafka})
        while sending.is_set():
            producer.produce(topic, b"x")
            producer.poll(0.002)
        producer.flush(20)

    sender = threading.Thread(target=send)
    sender.start()
    eventually(lambda: cluster.values(topic, 2))
    seen: list[list[int]] = []
    looks, real = itertools.count(), StartLookup.offsets
    held: list[dict[Partition, StartOffset]] = []

    def slow(lookup: StartLookup, partitions: Collection[Partition]) -> dict[Partition, StartOffset]:
        if not partitions:
            return {}
        if next(looks) == 0:
            held.append(real(lookup, partitions))
            eventually(lambda: len(seen) == 2, 40)
            return held[0]
        eventually(lambda: held and real(lookup, partitions) != held[0])
        return real(lookup, partitions)

    monkeypatch.setattr(StartLookup, "offsets", slow)

    def start() -> None:
        begin(apache_kafka, group, [topic], **client)
        seen.append(cluster.committed(group, topic, 2))

    workers = [threading.Thread(target=start) for _ in range(3)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    finally:
        sending.clear()
        sender.join(30)
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert min(seen[0]) >= 0
    assert sum(seen[0]) > 0
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    # A broker may take a moment to hear of it; of a member that did not leave it waits for the session's end, 20 s.
    eventually(lambda: admin.describe_consumer_groups([group])[group].result().members == [], 12)


def test_times_transactions_and_a_half_started_group(
    apache_kafka: str, cluster: Cluster, new_topic: Callable[..., str], group: str
) -> None:
    """What the brokers answer for each kind of partition, and a commit of which they took a part."""
    topic = new_topic(partitions=4)
    # Partition 0 has both, the newer one before an older; 1 has only older; 2 has only newer; 3 is empty.
    fill(apache_kafka, topic, (0, OLD_MS), (0, START_MS), (0, OLD_MS), (1, OLD_MS), (1, START_MS - 1), (2, START_MS))
    begin(apache_kafka, group, [topic], START)
    assert cluster.committed(group, topic, 4) == [1, 2, 0, 0]
    # A topic that takes the place of the group's own is new to it, and the group is not new.
    other = new_topic(partitions=1)
    fill(apache_kafka, other, (0, OLD_MS))
    begin(apache_kafka, group, [other], START)
    assert cluster.committed(group, other, 1) == [-1001]
    # An open transaction: its records are still to come to a reader that sees committed ones only.
    producer = Producer({"bootstrap.servers": apache_kafka, "transactional.id": group})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"x", partition=0)
    producer.flush(20)
    fill(apache_kafka, topic, (0, OLD_MS))
    begin(apache_kafka, f"{group}-2", [topic])
    assert cluster.committed(f"{group}-2", topic, 4) == [3, 2, 1, 0]
    producer.abort_transaction()
    # Half of it, as left by a worker whose commit was taken for some topics only.
    half = Consumer({"bootstrap.servers": apache_kafka, "group.id": f"{group}-3"})
    note = start_note([Partition(topic, number) for number in range(4)])
    half.commit(offsets=[TopicPartition(topic, 1, 1, metadata=note)], asynchronous=False)
    half.close()
    begin(apache_kafka, f"{group}-3", [f"^{topic}$"])
    assert cluster.committed(f"{group}-3", topic, 4) == [6, 1, 1, 0]
    assert set(notes(apache_kafka, f"{group}-3", topic, 4)) == {note}
    # One offset by anybody else, and it is a group that has begun.
    half = Consumer({"bootstrap.servers": apache_kafka, "group.id": f"{group}-4"})
    half.commit(offsets=[TopicPartition(topic, 1, 1)], asynchronous=False)
    half.close()
    begin(apache_kafka, f"{group}-4", [topic])
    assert cluster.committed(f"{group}-4", topic, 4) == [-1001, 1, -1001, -1001]


def test_a_worker_begins_at_the_end_once_and_never_skips_again(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """What was there before is left, what comes after is read, also while it is down and in a new partition."""
    topics = [new_topic(partitions=1), new_topic(), new_topic(partitions=1)]
    worker = Run(apache_kafka, topics, server, tmp_path, kafka={"start": "latest"})
    worker.send([(key, value.replace(b'"e', b'"old-')) for key, value in reviews(5)])
    checked = CliRunner().invoke(cli, ["check", "--connect", "--json", "--config", str(worker.config_file)])
    found = [row["detail"] for row in json.loads(checked.stdout)["findings"] if row["subject"] == "kafka.start"]
    assert found[1] == (
        f"group {worker.group} has no offsets; would begin now: {worker.input}-0 at 5 (kafka.start is latest)"
    )
    worker.start()
    try:
        worker.wait(lambda: any(line["event"] == "the new group begins here" for line in worker.lines()))
        worker.send(reviews(3))
        worker.wait_for_results(6)
        assert worker.signal(signal.SIGTERM) == 0
        worker.send(reviews(3, 3))
        admin = AdminClient({"bootstrap.servers": apache_kafka})
        admin.create_partitions([NewPartitions(worker.input, 2)])[worker.input].result(30)
        producer = Producer({"bootstrap.servers": apache_kafka})
        eventually(lambda: len(producer.list_topics(worker.input, timeout=10).topics[worker.input].partitions) == 2)
        for key, value in reviews(3, 6):
            producer.produce(worker.input, value, key, partition=1)
        assert producer.flush(20) == 0
        worker.start()
        worker.wait_for_results(18)
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    assert ids(worker.results()) == expected(9)
    begun = [line for line in worker.lines() if line["event"] == "the new group begins here"]
    assert [(line["topic"], line["partition"], line["offset"]) for line in begun] == [(worker.input, 0, 5)]
    assert any(line["event"] == "kafka.start is not used: the group has offsets" for line in worker.lines())
