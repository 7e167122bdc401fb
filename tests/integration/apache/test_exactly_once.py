"""exactly_once on a real broker, as a reader with read_committed sees it."""

from __future__ import annotations

import random
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from runtime_harness import Cluster, Worker, eventually
from topic_audit import audit
from worker_run import Run, expected, ids, reviews

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stub_server import StubServer

    from consumer.events import SourceRecord

CLASSIC = {"session.timeout.ms": 6000, "max.poll.interval.ms": 6000}
KIP_848 = {"group.protocol": "consumer", "max.poll.interval.ms": 6000}
PROTOCOLS = [pytest.param(CLASSIC, id="cooperative-sticky"), pytest.param(KIP_848, id="kip-848")]
EXACTLY_ONCE = {"mode": "exactly_once", "transaction_timeout_ms": 3000}
TASKS = ["sentiment", "product_features"]


def numbers(values: list[bytes]) -> list[int]:
    return [int(value.split()[0]) for value in values]


def test_whatever_order_records_finish_in_their_results_come_once_and_in_order(
    cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """Transactions of some records each, in partition order, with the offsets; a drain leaves nothing."""
    topic, output = new_topic("in"), new_topic("out")
    cluster.send(topic, 1000, 4)
    worker = start(topic, output, group, CLASSIC, mode="exactly_once", transaction_records=64)
    records = worker.wait(1000)
    random.Random(7).shuffle(records)
    for record in records:
        worker.finish(record)
    eventually(lambda: sum(cluster.committed(group, topic, 4)) == 1000)
    assert worker.runtime.drain(20.0)
    assert worker.fatal == []
    assert sorted(numbers(cluster.values(output, 4))) == list(range(1000))
    assert all(numbers(part) == sorted(numbers(part)) for part in by_partition(cluster, output))
    assert worker.observed.counts["committed transactions"] >= 1000 // 64


def by_partition(cluster: Cluster, topic: str) -> list[list[bytes]]:
    return [[value for _, value, _ in part if value is not None] for part in cluster.read(topic, 4).values()]


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_member_that_the_group_gave_up_commits_nothing(
    client: dict[str, Any], cluster: Cluster, new_topic: Callable[..., str], start: Callable[..., Worker], group: str
) -> None:
    """Its poll thread hung for longer than the group waits; another took over and finished before it came back."""
    topic, output = new_topic("in"), new_topic("out")
    hang = threading.Event()

    class Hanging(Worker):
        def _arrived(self, records: list[SourceRecord]) -> None:
            super()._arrived(records)
            hang.wait(60)

    first = Hanging(cluster.bootstrap, topic, output, group, client=client, mode="exactly_once")
    try:
        first.runtime.start()
        eventually(lambda: len(first.runtime.status().assignment) == 4)
        cluster.send(topic, 200, 4)
        held = first.wait(1)
        second = start(topic, output, group, client, mode="exactly_once", echo=True)
        eventually(lambda: sum(cluster.committed(group, topic, 4)) == 200, 60)
        for record in held:
            first.finish(record)
        hang.set()
        eventually(lambda: sum(map(len, first.revoked)) >= 4, 60)
        first.echo = True
        cluster.send(topic, 200, 4)
        eventually(lambda: sum(cluster.committed(group, topic, 4)) == 400, 60)
        assert second.runtime.drain(20.0)
    finally:
        hang.set()
        first.runtime.drain(5.0)
    assert sorted(numbers(cluster.values(output, 4))) == sorted([*range(200), *range(200)])


def test_a_worker_stopped_beyond_its_timeouts_is_fenced(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """SIGSTOP with work in hand, a successor finishes everything, SIGCONT: the read_committed count stays exact."""
    topics = [new_topic(partitions=4), new_topic(partitions=4), new_topic()]
    first, second = (Run(apache_kafka, topics, server, folder(tmp_path, n), delivery=EXACTLY_ONCE) for n in "12")
    try:
        first.start()
        first.wait(lambda: len(first.get("/status")[1]["assignment"]) == 4)
        first.send(reviews(400))
        first.wait_for_results(50)
        first.suspend()
        second.start()
        second.send(reviews(100, 400))
        second.wait(lambda: second.lag() == 0)
        first.go_on()
        second.send(reviews(100, 500))
        second.wait(lambda: second.lag() == 0)
        assert first.end() in (0, 4)
        assert second.end() == 0
    finally:
        first.kill()
        second.kill()
    found = audit(apache_kafka, topics[0], [topics[1]], topics[2], tasks=TASKS)
    assert found.clean, found
    assert ids(second.results()) == expected(600)


def test_a_killed_and_a_drained_worker_leave_every_outcome_exactly_once(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """A rebalance, a SIGKILL in the middle and a SIGTERM: what the killed one left open is aborted by the brokers."""
    topics = [new_topic(partitions=4), new_topic(partitions=4), new_topic()]
    first, second = (Run(apache_kafka, topics, server, folder(tmp_path, n), delivery=EXACTLY_ONCE) for n in "12")
    try:
        first.start()
        first.send([*reviews(300), ("bad", b"{"), ("gone", None)])
        first.wait_for_results(50)
        second.start()
        second.wait(lambda: bool(second.get("/status")[1]["assignment"]))
        second.send(reviews(300, 300))
        first.kill()
        second.wait(lambda: second.lag() == 0)
        assert second.signal(signal.SIGTERM) == 0
    finally:
        first.kill()
        second.kill()
    found = audit(apache_kafka, topics[0], [topics[1]], topics[2], tasks=TASKS)
    assert found.clean, found
    assert (found.inputs, found.null_values) == (602, 1)
    assert found.dead_letters == {"decode/InvalidJson": 1}
    assert ids(second.results()) == expected(600)


def folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name
