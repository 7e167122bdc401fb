"""The switch of a shadow without a cluster: what is in its transactions, and what a refusal leaves."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from avro_values import RESULT_SCHEMA
from confluent_kafka import KafkaError

from consumer.codecs.avro_codec import encode_avro
from consumer.codecs.avro_schemas import parse_writer_schema
from consumer.codecs.result_values import read_result
from consumer.delivery.shadow_plan import PlannedRange
from consumer.delivery.shadow_switch import SwitchChoice
from consumer.events import Partition
from consumer.kafka.clients.cluster import TopicUnusable
from consumer.kafka.tools import switcher as switching
from consumer.kafka.tools.switcher import Switcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

COUNTS = {"in": 4, "out": 4, "narrow": 2}


class StubCluster:
    """Topics, and transactions that are committed unless ``refuses`` a value."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Any]] = {}
        self.committed: list[tuple[str, int, bytes]] = []
        self.offsets: dict[Partition, int] = {}
        self.transactions: list[int] = []
        """Records of each."""
        self.refuses: Callable[[bytes], bool] = lambda _: False

    def put(self, topic: str, partition: int, value: bytes | None, key: bytes = b"k") -> None:
        held = self.topics.setdefault(topic, [])
        offset = sum(message.partition() == partition for message in held)
        fields = {"topic": topic, "partition": partition, "offset": offset, "key": key, "value": value, "headers": None}
        held.append(SimpleNamespace(**{name: lambda each=each: each for name, each in fields.items()}))

    def read_to_end(
        self, _servers: str, topic: str, *, since: Mapping[int, int] | None = None, **_: Any
    ) -> Iterator[Any]:
        for message in list(self.topics.get(topic, ())):
            if message.offset() >= (since or {}).get(message.partition(), 0):
                yield message

    def commit(self, fill: Callable[[Any], None]) -> KafkaError | None:
        records: list[Any] = []
        transaction = SimpleNamespace(produce=lambda **record: records.append(record), offsets=None)
        fill(transaction)
        if any(self.refuses(record["value"]) for record in records):
            return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large")
        self.transactions.append(len(records))
        for record in records:
            self.committed.append((record["topic"], record["partition"], record["value"]))
            self.put(record["topic"], max(0, record["partition"]), record["value"], record["key"])
        behind, metadata = transaction.offsets
        assert metadata == "of the group"
        self.offsets |= {Partition(each.topic, each.partition): each.offset for each in behind}
        return None

    def switched(self, places: list[Partition], *, pending: bool) -> dict[Partition, int]:
        assert not pending
        return {place: self.offsets[place] for place in places if place in self.offsets}

    def switch_metadata(self) -> str:
        return "of the group"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> StubCluster:
    it = StubCluster()
    monkeypatch.setattr(switching, "read_to_end", it.read_to_end)
    monkeypatch.setattr(switching, "CHUNK_RECORDS", 4)
    return it


def result(event: int, offset: int = 0, partition: int = 0) -> bytes:
    place = {"topic": "in", "partition": partition, "offset": offset}
    return json.dumps({"event_id": f"e{event}", "task": "t", "record": place, "processed_at": 1}).encode()


def a_switcher(live: str = "out") -> Switcher:
    """Knows the result schema as the registry's number 7."""
    plan = {Partition("in", number): PlannedRange(0, 100, {}) for number in range(4)}
    schemas: dict[Any, Any] = {7: parse_writer_schema(RESULT_SCHEMA)}
    choice = SwitchChoice(plan, lambda value: read_result(value, schemas.__getitem__))
    return Switcher("host:1", {"out.shadow": live}, choice, COUNTS.__getitem__, client={}, timeout=1.0)


def switched(cluster: StubCluster, live: str = "out") -> dict[Any, int]:
    switcher = a_switcher(live)
    switcher.read()
    it: Any = cluster
    return dict(switcher.publish(it, it, None, lambda _: None))


def test_a_result_keeps_its_partition_where_topics_have_as_many(cluster: StubCluster) -> None:
    """Elsewhere the key decides, as with what workers publish."""
    cluster.put("out.shadow", 3, result(1, partition=3))
    assert switched(cluster) == {"publish": 1}
    assert cluster.committed == [("out", 3, result(1, partition=3))]
    cluster.offsets.clear()
    assert switched(cluster, "narrow") == {"publish": 1}
    assert cluster.committed[-1] == ("narrow", -1, result(1, partition=3))


def test_offsets_are_behind_all_that_was_passed_over(cluster: StubCluster) -> None:
    """So the next switch finds nothing left."""
    for value in (result(1), None, result(2), b"else"):
        cluster.put("out.shadow", 0, value)
    cluster.put("out", 0, result(2, offset=9))
    cluster.topics["out.shadow"][1] = SimpleNamespace(**{**vars(cluster.topics["out.shadow"][1]), "key": lambda: b"x"})
    assert switched(cluster) == {"publish": 1, "newer": 1, "other": 2}
    assert cluster.offsets == {Partition("out.shadow", 0): 4}
    assert switched(cluster) == {}


def test_a_refused_result_is_named_and_none_behind_it_is_published(cluster: StubCluster) -> None:
    """Those before it are: run again once it is mended, the switch goes on with it."""
    for number in range(8):
        cluster.put("out.shadow", 0, result(number))
    cluster.refuses = lambda value: value == result(5)
    with pytest.raises(TopicUnusable, match=r"topic 'out' does not take the result at out\.shadow-0@5 .*too large"):
        switched(cluster)
    assert [value for _, _, value in cluster.committed] == [result(number) for number in range(5)]
    assert cluster.offsets == {Partition("out.shadow", 0): 5}
    cluster.refuses = lambda _: False
    switched(cluster)
    assert [value for _, _, value in cluster.committed] == [result(number) for number in range(8)]


def test_what_live_workers_publish_meanwhile_is_seen_between_transactions(
    cluster: StubCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not gone over."""
    monkeypatch.setattr(switching, "LOOK_SECONDS", 0.0)
    for number in range(8):
        cluster.put("out.shadow", 0, result(number))

    def refuses(_: bytes) -> bool:
        if len(cluster.topics.get("out", ())) == 0:
            cluster.put("out", 0, result(7, offset=50))
        return False

    cluster.refuses = refuses
    assert switched(cluster) == {"publish": 7, "newer": 1}
    assert cluster.transactions == [4, 3]


def avro_result(event: int, number: int | None, offset: int = 0) -> bytes:
    """In the frame of schema ``number``; bare with None."""
    model = {"name": "m", "version": "1", "signature": "s"}
    timing = {"model_ms": 1.0, "total_ms": 1.0, "model_calls": 1}
    place = {"topic": "in", "partition": 0, "offset": offset, "timestamp": None}
    own = {"result_id": "0" * 64, "event_id": f"e{event}", "task": "t", "extractions": [], "processed_at": 1}
    return encode_avro({**own, "model": model, "timing": timing, "record": place}, number)


@pytest.mark.parametrize("number", [7, None])
def test_avro_results_are_published_byte_by_byte(cluster: StubCluster, number: int | None) -> None:
    """By the same rules; a live topic may hold both formats. Of each schema it is told where it goes."""
    for event in range(3):
        cluster.put("out.shadow", 0, avro_result(event, number))
    cluster.put("out", 0, avro_result(0, number, offset=9))
    cluster.put("out", 0, result(1, offset=9))
    switcher = a_switcher()
    switcher.read()
    assert switcher.schemas == ({("out", 7)} if number else set())
    it: Any = cluster
    assert switcher.publish(it, it, None, lambda _: None) == {"newer": 2, "publish": 1}
    assert cluster.committed == [("out", 0, avro_result(2, number))]


def test_a_result_of_the_shadow_that_cannot_be_read_is_named_and_nothing_is_published(cluster: StubCluster) -> None:
    cluster.put("out.shadow", 0, avro_result(1, 7))
    cluster.put("out.shadow", 0, avro_result(2, 8))
    with pytest.raises(TopicUnusable, match=r"the result at out\.shadow-0@1 .* no schema 8.*registry that the run had"):
        switched(cluster)
    assert cluster.committed == []


def test_records_of_the_live_topic_that_cannot_be_read_are_counted(cluster: StubCluster) -> None:
    """Others may write to it, too."""
    cluster.put("out.shadow", 0, avro_result(1, 7))
    for number in (8, 9):
        cluster.put("out", 0, avro_result(1, number, offset=9))
    switcher = a_switcher()
    switcher.read()
    count, why = switcher.unreadable["out"]
    assert (count, "no schema 8" in why) == (2, True)
    it: Any = cluster
    assert switcher.publish(it, it, None, lambda _: None) == {"publish": 1}
