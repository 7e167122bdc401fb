"""Lag where brokers are slow, silent or without leaders: how long a pass takes, and how old the numbers are."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from runtime_harness import Observed
from structlog.testing import capture_logs

from consumer.events import Partition
from consumer.kafka.consume.lag import PASS_SECONDS, REQUEST_SECONDS, STALE_SECONDS, LagWatch
from consumer.local.broker import EmbeddedBroker

LEADERS = (1, 2, 3)
PARTITIONS = [Partition("in", number) for number in range(500)]


class Client:
    """A cluster of three leaders; whoever is silent takes the whole time-out. Raises for any other call."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silent: set[int | str] = set()
        self.no_leader: set[int] = set()
        self.end = 7
        self.requests = 0

    def made(self, settings: dict[str, Any], logger: object) -> Any:
        assert settings["isolation.level"] == "read_uncommitted"
        assert logger is not None
        return self

    def _wait(self, who: int | str, timeout: float) -> None:
        self.requests += 1
        if who in self.silent:
            self.now += timeout
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def committed(self, positions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._wait("coordinator", timeout)
        return [TopicPartition(p.topic, p.partition, 5 if p.partition else -1001) for p in positions]

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._wait("metadata", timeout)
        found = {p.number: SimpleNamespace(leader=self.leader(p.number)) for p in PARTITIONS}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=found)})

    def leader(self, number: int) -> int:
        return -1 if number in self.no_leader else LEADERS[number % 3]

    def offsets_for_times(self, positions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        (leader,) = {self.leader(p.partition) for p in positions}
        self._wait(leader, timeout)
        return [
            TopicPartition(p.topic, p.partition, 2 if p.offset == OFFSET_BEGINNING else self.end) for p in positions
        ]


def watching() -> tuple[Client, LagWatch]:
    client = Client()
    watch = LagWatch({}, "group", lambda: PARTITIONS, Observed(), clock=lambda: client.now, new_client=client.made)
    return client, watch


def test_a_pass_is_a_few_requests_whatever_the_number_of_partitions() -> None:
    """Without a committed offset everything that is left lies ahead."""
    client, watch = watching()
    assert watch.age() == 0
    watch.look()
    assert watch.lags == {partition: 2 if partition.number else 5 for partition in PARTITIONS}
    assert client.requests <= 2 + 2 * len(LEADERS)
    client.now += 11.0
    assert watch.age() == 11.0


def test_a_silent_leader_costs_its_timeout_once_and_makes_no_other_number_old() -> None:
    """Its own numbers stand for a minute and are gone then; the age says so all the while, and when it is over."""
    client, watch = watching()
    watch.look()
    client.silent, client.end, client.now = {2}, 100, 10.0
    led = {partition for partition in PARTITIONS if client.leader(partition.number) == 2}
    for _ in range(12):
        started = client.now
        watch.look()
        assert client.now - started <= REQUEST_SECONDS
        assert {watch.lags[partition] for partition in PARTITIONS if partition.number and partition not in led} == {95}
        stale = client.now > STALE_SECONDS
        assert {watch.lags.get(partition) for partition in led} == ({None} if stale else {2})
        assert watch.age() == client.now
        assert sum(age <= REQUEST_SECONDS for age in watch.ages().values()) == len(PARTITIONS) - len(led)
        client.now += 10.0
    client.silent = set()
    watch.look()
    assert {watch.lags[partition] for partition in led} == {95}
    assert watch.age() == 0


def test_a_pass_is_bounded_when_all_are_silent_and_those_that_answer_come_first() -> None:
    """No partition waits for the time-outs of more brokers than fit into a pass."""
    client, watch = watching()
    client.silent = {1, 2, 3, "metadata"}
    watch._leaders = {partition: client.leader(partition.number) for partition in PARTITIONS}
    watch.look()
    assert client.now <= PASS_SECONDS + 3 * REQUEST_SECONDS
    client.silent = {1, 2}
    started = client.now
    watch.look()
    assert watch.ages()[PARTITIONS[2]] <= client.now - started
    assert PARTITIONS[2] in watch.lags
    assert PARTITIONS[1] not in watch.lags


@pytest.mark.parametrize("silent", ["coordinator", "metadata"])
def test_without_committed_offsets_or_leaders_the_numbers_grow_old(silent: str) -> None:
    """Leaders that were known before are asked all the same."""
    client, watch = watching()
    watch.look()
    client.silent = {silent}
    client.now += 10.0
    watch.look()
    assert len(watch.lags) == len(PARTITIONS)
    assert watch.age() == (0 if silent == "metadata" else 10.0 + REQUEST_SECONDS)
    client.now += STALE_SECONDS
    watch.look()
    assert len(watch.lags) == (len(PARTITIONS) if silent == "metadata" else 0)


def test_a_partition_without_a_leader_is_not_asked_about() -> None:
    """The client would wait for one to be chosen, and all others with it."""
    client, watch = watching()
    client.no_leader = {4}
    watch.look()
    assert client.now == 0
    assert watch.lags.keys() == set(PARTITIONS) - {PARTITIONS[4]}


def test_a_partition_that_left_has_no_lag() -> None:
    """Its next owner shows it; both would count it twice."""
    client = Client()
    assigned = list(PARTITIONS)
    observed = Observed()
    watch = LagWatch({}, "g", lambda: assigned, observed, clock=lambda: client.now, new_client=client.made)
    watch.look()
    del assigned[3:]
    client.silent = {1, 2, 3, "coordinator"}
    watch.look()
    assert observed.lags[-1].keys() == watch.lags.keys() == watch.ages().keys() == set(PARTITIONS[:3])
    assigned.clear()
    watch.look()
    assert (watch.lags, watch.age()) == ({}, 0)


@pytest.mark.parametrize(("code", "hinted"), [(KafkaError._TIMED_OUT, True), (KafkaError._TRANSPORT, False)])
def test_offsets_that_a_transaction_holds_back_are_told_with_the_way_out(code: int, hinted: bool) -> None:
    """Only where brokers are silent on this one question; a broker that is away is another matter."""

    class Silent:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def committed(self, *_: Any, **__: Any) -> Any:
            raise KafkaException(KafkaError(code))

        def poll(self, _: float) -> None: ...

        def close(self) -> None: ...

    silent: Any = Silent
    watch = LagWatch({}, "group", lambda: [Partition("in", 0)], Observed(), interval=0.001, new_client=silent)
    with capture_logs() as lines:
        watch.thread.start()
        deadline = time.monotonic() + 10
        while not lines and time.monotonic() < deadline:
            time.sleep(0.005)
        watch.end()
        watch.close()
        watch.thread.join(10)
    assert not watch.thread.is_alive()
    assert lines[0]["log_level"] == "warning"
    assert ("kafka-transactions.sh find-hanging" in (lines[0]["fix"] or "")) is hinted
    assert watch.lags == {}


def test_a_leader_at_an_address_that_was_never_reached_is_named() -> None:
    """While it is silent; topics that only such brokers lead cannot be consumed."""
    client = Client()
    settings: dict[str, Any] = {}

    def made(given: dict[str, Any], logger: object) -> Any:
        settings.update(given)
        return client.made(given, logger)

    assigned = [Partition("in", 2), Partition("more", 0), Partition("more", 2)]
    watch = LagWatch(
        {"bootstrap.servers": "kafka:9092"},
        "group",
        lambda: assigned,
        Observed(),
        clock=lambda: client.now,
        new_client=made,
    )
    client.silent = {3}
    watch.look()
    watch.look_at_brokers()
    assert (watch.unreachable, watch.unreachable_topics) == ("", frozenset()), "it may be down for a moment"
    settings["error_cb"](Refused())
    with capture_logs() as logs:
        watch.look_at_brokers()
        watch.look_at_brokers()
    assert "10.9.9.9:9092 (Connect failed)" in watch.unreachable
    assert watch.unreachable_topics == {"in"}
    assert [line["event"] for line in logs] == ["brokers cannot be reached"]
    client.silent = set()
    watch.look()
    watch.look_at_brokers()
    assert (watch.unreachable, watch.unreachable_topics) == ("", frozenset())


class Refused:
    """An error of a client's connection."""

    def str(self) -> str:
        return "10.9.9.9:9092/3: Connect failed"


@pytest.mark.broker
def test_why_the_group_is_not_joined() -> None:
    """With a real client: the coordinator is at an address that is advertised and refuses."""
    with EmbeddedBroker(topics={"in": 1}) as broker:
        broker.advertise(1, "127.0.0.1", 1)
        settings = {"bootstrap.servers": broker.bootstrap_servers}
        watch = LagWatch(settings, "group", list, Observed(), interval=0.05, joined=lambda: False)
        watch.thread.start()
        ends = time.monotonic() + 30
        while not watch.unreachable and time.monotonic() < ends:
            time.sleep(0.05)
        watch.end()
        watch.close()
        watch.thread.join(30)
        assert "127.0.0.1:1 (Connect to" in watch.unreachable
