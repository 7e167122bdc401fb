"""Members of a group that are restarted, one after another or under one name, on a real broker."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from runtime_harness import Cluster, Worker, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSIC = {"session.timeout.ms": 6000}
KIP_848 = {"group.protocol": "consumer"}
PROTOCOLS = [pytest.param(CLASSIC, id="cooperative-sticky"), pytest.param(KIP_848, id="kip-848")]


class Processing:
    """Finishes a worker's records as a model server would: some milliseconds later, a handful at once, in no order."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        done = 0
        while not self._stopped:
            with self._worker.changed:
                self._worker.changed.wait_for(lambda: len(self._worker.records) > done, 0.2)  # noqa: B023
                arrived = self._worker.records[done : done + 64]
            done += len(arrived)
            time.sleep(0.03)
            for record in random.sample(arrived, len(arrived)):
                self._worker.finish(record)

    def stop(self) -> None:
        self._stopped = True
        self._thread.join(30)
        assert not self._thread.is_alive()


class Load:
    """Sends numbered records, about 500 a second, until it is stopped."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.sent = 0
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
        self._topic, self._partitions = topic, partitions
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            for _ in range(10):
                key = self.sent % 40
                partition = key % self._partitions
                self._producer.produce(self._topic, value=b"%d" % self.sent, key=b"key-%d" % key, partition=partition)
                self.sent += 1
            self._producer.poll(0)

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self._producer.flush(20) == 0
        return self.sent


def assigned(*workers: Worker) -> int:
    """Partitions that these workers have, together."""
    return sum(len(worker.runtime.status().assignment) for worker in workers)


@pytest.mark.parametrize(
    ("client", "mode"),  # the other two pairs are make chaos' and take as long again
    [
        pytest.param(CLASSIC, "exactly_once", id="cooperative-sticky-exactly_once"),
        pytest.param(KIP_848, "at_least_once", id="kip-848-at_least_once"),
    ],
)
def test_a_rolling_restart_under_load_loses_nothing_and_doubles_nothing(
    client: dict[str, Any],
    mode: str,
    apache_kafka: str,
    cluster: Cluster,
    new_topic: Callable[..., str],
    start: Callable[..., Worker],
    group: str,
) -> None:
    """Four workers are replaced one after another: the new one starts, the old one drains, and says that it could."""
    partitions = 8
    topic, output = new_topic("in", partitions), new_topic("out", partitions)
    workers = [start(topic, output, group, client, mode=mode) for _ in range(4)]
    processing = {id(worker): Processing(worker) for worker in workers}
    eventually(lambda: all(assigned(worker) for worker in workers) and assigned(*workers) == partitions, 60)
    load = Load(apache_kafka, topic, partitions)
    for old in list(workers):
        old.wait(100)
        new = start(topic, output, group, client, mode=mode)
        processing[id(new)] = Processing(new)
        workers.append(new)
        assert old.runtime.drain(30.0), "a successor would repeat records"
        workers.remove(old)
        processing.pop(id(old)).stop()
        eventually(lambda: assigned(*workers) == partitions, 60)
    sent = load.stop()
    eventually(lambda: sum(cluster.committed(group, topic, partitions)) == sent, 60)
    for worker in workers:
        assert worker.runtime.drain(30.0)
        assert not worker.fatal
        processing.pop(id(worker)).stop()
    counted = Counter(int(value) for value in cluster.values(output, partitions))
    assert sorted(counted) == list(range(sent))
    assert {number: count for number, count in counted.items() if count > 1} == {}


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_restarted_static_member_gets_its_partitions_back_without_a_rebalance(
    client: dict[str, Any], cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """Within the session timeout nobody else is assigned or loses anything, and nothing is read twice."""
    topic, output = new_topic("in"), new_topic("out")
    first = start(topic, output, group, {**client, "group.instance.id": "a"}, echo=True)
    other = start(topic, output, group, {**client, "group.instance.id": "b"}, echo=True)
    eventually(lambda: assigned(first) == assigned(other) == 2, 60)
    cluster.send(topic, 100, 4, keys=40)
    eventually(lambda: sum(max(0, offset) for offset in cluster.committed(group, topic, 4)) == 100)
    before, rebalances = first.runtime.status().assignment.keys(), dict(other.observed.counts)
    assert first.runtime.drain(20.0)
    again = start(topic, output, group, {**client, "group.instance.id": "a"}, echo=True)
    eventually(lambda: assigned(again) == 2, 60)
    assert again.runtime.status().assignment.keys() == before
    cluster.send(topic, 100, 4, keys=40)
    eventually(lambda: sum(cluster.committed(group, topic, 4)) == 200)
    for kind in ("assigned", "revoked", "lost"):
        assert other.observed.counts[kind] == rebalances.get(kind, 0)
    assert len(cluster.values(output, 4)) == 200


def test_two_workers_with_one_static_name_end_the_first_with_the_reason(
    cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """A classic group gives the place to the last that asks; what the first still holds is neither its own nor lost."""
    client = {**CLASSIC, "group.instance.id": "a"}
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 20, 1)
    first = start(topic, output, group, client)
    held = first.wait(20)
    second = start(topic, output, group, client, echo=True)
    eventually(lambda: first.fatal)
    assert "FENCED_INSTANCE_ID" in str(first.fatal[0])
    assert "group.instance.id a" in str(first.fatal[0])
    for record in held:
        first.finish(record)
    assert not first.runtime.drain(1.0)
    eventually(lambda: cluster.committed(group, topic, 1) == [20])
    assert [record.offset for record in second.records] == list(range(20))
    assert sorted(int(value) for value in cluster.values(output, 1)) == list(range(20))


STATIC_MEMBER = """
    import sys
    from confluent_kafka import Consumer
    bootstrap, topic, group = sys.argv[1:]
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.instance.id": "a",
                         "group.protocol": "consumer", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic], on_assign=lambda *_: print("assigned", flush=True))
    while True:
        consumer.poll(0.1)
"""


def test_a_static_member_waits_for_the_place_of_one_that_crashed(
    apache_kafka: str, cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """Under KIP-848 the broker answers with a fatal error until the session has run out; the worker outlives it."""
    topic, output = new_topic("in", 1), new_topic("out", 1)
    cluster.send(topic, 20, 1)
    arguments = [sys.executable, "-c", textwrap.dedent(STATIC_MEMBER), apache_kafka, topic, group]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as crashing:
        assert crashing.stdout is not None
        try:
            assert crashing.stdout.readline() == b"assigned\n"
        finally:
            crashing.send_signal(signal.SIGKILL)
    worker = start(topic, output, group, {**KIP_848, "group.instance.id": "a"}, echo=True)
    eventually(lambda: worker.observed.counts["consumer _FATAL"], 60)
    assert not worker.runtime.status().joined
    eventually(lambda: cluster.committed(group, topic, 1) == [20], 60)
    assert not worker.fatal
    assert worker.runtime.status().joined
