"""The part of one worker in the start of its group, against clients that answer as told."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from consumer.config.tree import Config, KafkaConfig
from consumer.kafka.consume import group_start
from consumer.kafka.consume.group_start import commit_start
from consumer.kafka.consume.start_lookup import BEGINNER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOPICS = {"a": 2, "b": 1}
PARTITIONS = [("a", 0), ("a", 1), ("b", 0)]


class Cluster:
    """Brokers and the only member of a group, in one: every partition that is asked for is assigned."""

    def __init__(self) -> None:
        self.cluster_id = "a-real-one"
        self.topics = dict(TOPICS)
        self.forbidden: set[str] = set()
        self.committed_offsets: dict[tuple[str, int], tuple[int, str]] = {}
        self.ends = {("a", 0): 10, ("a", 1): 0, ("b", 0): 30}
        self.at_time: dict[tuple[str, int], int] = {}
        self.refused: set[str] = set()
        self.commits: list[dict[tuple[str, int], int]] = []
        self.asked: list[int] = []
        self.members: list[str] = []
        self.listings = 0
        self._assign: Callable[[], None] = lambda: None
        self.epoch = 1
        self.settings: dict[str, Any] = {}
        self.calls: list[str] = []
        self.on_committed: Callable[[], None] = lambda: None
        self.on_subscribe: Callable[[], object] = lambda: None

    # -- the consumer

    def list_topics(self, topic: str | None, *, timeout: float) -> Any:  # noqa: ARG002
        if topic is None:
            every = {name: self.list_topics(name, timeout=0).topics[name] for name in self.topics}
            return SimpleNamespace(cluster_id=self.cluster_id, topics=every)
        error = None
        if topic in self.forbidden:
            error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        elif topic not in self.topics:
            error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        found = SimpleNamespace(error=error, partitions=dict.fromkeys(range(self.topics.get(topic, 0))))
        return SimpleNamespace(cluster_id=self.cluster_id, topics={topic: found})

    def committed(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        self.on_committed()
        found = [(p, self.committed_offsets.get((p.topic, p.partition), (-1001, ""))) for p in partitions]
        return [TopicPartition(p.topic, p.partition, offset, metadata=note) for p, (offset, note) in found]

    def offsets_for_times(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        self.asked.append(partitions[0].offset)
        known = {OFFSET_BEGINNING: dict.fromkeys([*PARTITIONS, ("b", 1)], 2), OFFSET_END: self.ends}
        offsets = known.get(partitions[0].offset, self.at_time)
        return [TopicPartition(p.topic, p.partition, offsets.get((p.topic, p.partition), -1)) for p in partitions]

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any) -> None:  # noqa: ARG002
        self.on_subscribe()
        self.calls.append(f"subscribe {topics}")
        self._assign = lambda: on_assign(self, [TopicPartition(topics[0], 0)])

    def poll(self, timeout: float) -> None:
        if timeout:
            self._assign()

    def consumer_group_metadata(self) -> bytes:
        return b"CGMDv2:" + self.epoch.to_bytes(4, sys.byteorder)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        self.commits.append({(p.topic, p.partition): p.offset for p in offsets})
        for p in offsets:
            if p.topic not in self.refused:
                self.committed_offsets[p.topic, p.partition] = (p.offset, p.metadata or "")
        if self.refused:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    def incremental_assign(self, partitions: list[TopicPartition]) -> None: ...

    def pause(self, partitions: list[TopicPartition]) -> None: ...

    def unsubscribe(self) -> None:
        self.calls.append("unsubscribe")

    def close(self) -> None:
        self.calls.append("close")

    # -- the admin client

    def list_consumer_group_offsets(self, asked: list[Any], *, request_timeout: float) -> Any:  # noqa: ARG002
        self.listings += 1
        every = [TopicPartition(*each, offset) for each, (offset, _) in self.committed_offsets.items()]
        return {asked[0].group_id: SimpleNamespace(result=lambda: SimpleNamespace(topic_partitions=every))}

    def describe_consumer_groups(self, groups: list[str], *, request_timeout: float) -> Any:  # noqa: ARG002
        members = [SimpleNamespace(client_id=name) for name in self.members]
        return {groups[0]: SimpleNamespace(result=lambda: SimpleNamespace(members=members))}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()

    def client(settings: dict[str, Any]) -> Cluster:
        found.settings = settings
        return found

    monkeypatch.setattr(group_start, "Consumer", client)
    monkeypatch.setattr("confluent_kafka.admin.AdminClient", lambda settings: found)  # noqa: ARG005
    monkeypatch.setattr(group_start, "POLL_SECONDS", 0.001)
    return found


def begin(
    start: str = "latest", rounds: int = 50, client: dict[str, Any] | None = None, inputs: Iterable[str] = TOPICS
) -> list[Any]:
    """Let a worker begin, for so many rounds at most; what it logged."""
    left = iter(range(rounds))
    config = Config(kafka=KafkaConfig(group_id="g", start=start, client=client or {}))
    with capture_logs() as logged:
        commit_start(config, inputs, lambda: next(left, None) is None)
    return [{key: line[key] for key in line if key not in ("group", "log_level")} for line in logged]


def test_a_new_group_begins_once_and_says_where(cluster: Cluster) -> None:
    """One commit of every partition, a line for each, and the group is left before the worker's own consumer joins."""
    lines = begin()
    assert cluster.commits == [{("a", 0): 10, ("a", 1): 0, ("b", 0): 30}]
    assert [(line["topic"], line["partition"], line["offset"], line["reason"]) for line in lines] == [
        ("a", 0, 10, "kafka.start is latest"),
        ("a", 1, 0, "kafka.start is latest"),
        ("b", 0, 30, "kafka.start is latest"),
    ]
    assert cluster.calls == ["subscribe ['a']", "unsubscribe", "close"]


def test_a_group_with_offsets_of_another_topic_is_not_new(cluster: Cluster) -> None:
    """Its inputs were replaced: what came to the new ones before this worker is not passed over."""
    cluster.committed_offsets = {("old", 3): (7, "")}
    said = "kafka.start is not used: the group has offsets of topics that are no inputs now"
    assert begin() == [{"event": said, "topics": ["old"]}]
    assert cluster.commits == []
    assert cluster.calls == ["close"]


def test_the_other_topics_are_asked_for_once(cluster: Cluster) -> None:
    """Not in every round; and what another worker has committed of the inputs meanwhile is none of them."""
    cluster.on_subscribe = lambda: None
    cluster.committed_offsets = {("old", 0): (-1001, "")}
    begin()
    assert len(cluster.commits) == cluster.listings == 1


def test_a_group_with_any_offset_is_left_as_it_is(cluster: Cluster) -> None:
    """Not joined and not asked for ends: one look."""
    cluster.committed_offsets = {("b", 0): (0, "")}
    assert begin() == [{"event": "kafka.start is not used: the group has offsets"}]
    assert cluster.calls == ["close"]
    assert cluster.asked == []
    assert cluster.commits == []


def test_an_offset_of_another_worker_counts_until_the_commit(cluster: Cluster) -> None:
    """Looked at once more as the owner of the first partition: another one was the owner before."""

    def other_worker() -> None:
        if "subscribe ['a']" in cluster.calls:
            cluster.committed_offsets = {("a", 0): (3, "")}

    cluster.on_committed = other_worker
    begin()
    assert cluster.commits == []


def test_what_came_while_the_worker_joined_is_read(cluster: Cluster) -> None:
    """latest is the end of before: a group takes seconds to form."""

    def more() -> None:
        if "subscribe ['a']" in cluster.calls:
            cluster.ends = {("a", 0): 500, ("a", 1): 500, ("b", 0): 500}

    cluster.on_committed = more
    begin()
    assert cluster.commits == [{("a", 0): 10, ("a", 1): 0, ("b", 0): 30}]


def test_ends_are_asked_before_the_time(cluster: Cluster) -> None:
    """A record that comes between the two is not passed over."""
    cluster.at_time = {("a", 0): 4}
    begin("1970-01-01T00:00:01Z")
    assert cluster.asked == [OFFSET_END, 1000]
    assert cluster.commits == [{("a", 0): 4, ("a", 1): 0, ("b", 0): 30}]


def test_a_commit_that_is_taken_in_part_is_finished_with_the_same_offsets(cluster: Cluster) -> None:
    """Reading b is forbidden for a while. What it got meanwhile is not skipped."""
    cluster.refused = {"b"}

    def allowed() -> None:
        if len(cluster.commits) >= 3:
            cluster.refused = set()
            cluster.ends = {("b", 0): 99}

    cluster.on_committed = allowed
    lines = begin()
    assert cluster.commits[0] == {("a", 0): 10, ("a", 1): 0, ("b", 0): 30}
    assert cluster.commits[1:] == [{("b", 0): 30}] * 3
    assert lines[0]["event"] == "the group's start waits"
    assert "authorization" in lines[0]["reason"]
    assert lines[0]["fix"] == "grant this client READ on the group and the input topics"
    assert len([line for line in lines if line["event"] == "the group's start waits"]) == 1
    assert [line["offset"] for line in lines[1:]] == [10, 0, 30]


def test_a_half_started_group_is_finished_by_a_later_worker(cluster: Cluster) -> None:
    """The one before was stopped while b was refused: the group is no group with offsets for that."""
    cluster.refused = {"b"}
    begin(rounds=5)
    assert set(cluster.committed_offsets) == {("a", 0), ("a", 1)}
    cluster.refused, cluster.commits = set(), []
    begin()
    assert cluster.commits == [{("b", 0): 30}]


def test_nothing_is_committed_after_the_membership_is_lost(cluster: Cluster) -> None:
    """Such a commit would count as one from outside the group, which brokers do not fence. It joins again."""
    cluster.epoch = 0

    def back() -> None:
        if cluster.calls.count("unsubscribe") == 1:
            cluster.epoch = 2

    cluster.on_committed = back
    begin()
    assert cluster.calls == ["subscribe ['a']", "unsubscribe", "subscribe ['a']", "unsubscribe", "close"]
    assert len(cluster.commits) == 1


def test_workers_that_run_have_begun_without(cluster: Cluster) -> None:
    """Offsets under a worker that reads already would only confuse; other beginners do not count."""
    cluster.members = [BEGINNER, "rexstream"]
    (line,) = begin()
    assert line["event"] == "kafka.start is not used: workers of the group run already"
    assert cluster.commits == []
    assert cluster.calls == ["close"]
    cluster.members = [BEGINNER, BEGINNER]
    begin()
    assert len(cluster.commits) == 1


def test_a_topic_that_comes_later_starts_at_its_beginning(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed while none is there, and said once."""
    cluster.topics = {}
    looks = iter(range(1000))

    def sleep(_: float) -> None:
        if next(looks) == 3:
            cluster.topics = {"a": 2}

    monkeypatch.setattr(group_start, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    lines = begin()
    assert [line["event"] for line in lines].count("no input topic is there yet: the group begins when one is") == 1
    assert cluster.commits == [{("a", 0): 2, ("a", 1): 2}]


def test_a_partition_that_is_added_meanwhile_starts_at_its_beginning(cluster: Cluster) -> None:
    """latest would pass over what arrived before it was noticed."""

    def more() -> None:
        cluster.topics["b"] = 2

    cluster.on_subscribe = more
    begin()
    assert cluster.commits == [{("a", 0): 10, ("a", 1): 0, ("b", 0): 30, ("b", 1): 2}]


def test_a_topic_that_is_deleted_meanwhile_is_left_out(cluster: Cluster) -> None:
    """The group begins without it."""
    cluster.on_subscribe = lambda: cluster.topics.pop("b")
    assert [line["topic"] for line in begin()] == ["a", "a"]
    assert cluster.commits == [{("a", 0): 10, ("a", 1): 0}]


def test_the_topics_of_a_pattern_begin_together(cluster: Cluster) -> None:
    """And no others; a topic that matches and comes later starts at its beginning like any other."""
    cluster.topics |= {"b.copy": 1, "other": 1}
    cluster.ends["b.copy", 0] = 8
    begin(inputs=["a", "^b.*$"])
    assert cluster.commits == [{("a", 0): 10, ("a", 1): 0, ("b", 0): 30, ("b.copy", 0): 8}]
    cluster.topics["b.new"] = 1
    begin(inputs=["a", "^b.*$"])
    assert len(cluster.commits) == 1


def test_a_topic_that_may_not_be_seen_is_waited_for(cluster: Cluster) -> None:
    """It may have a history: it must not count as one that came later, nor begin later than the others."""
    cluster.forbidden = {"b"}
    (line,) = begin(rounds=3)
    assert line["event"] == "the group's start waits"
    assert cluster.commits == []


def test_the_embedded_broker_cannot_look_up_times(cluster: Cluster) -> None:
    """It answers "no such record" for any time, and all that it holds would be skipped."""
    cluster.cluster_id = "mockCluster0x1"
    with pytest.raises(ValueError, match=r"use Apache Kafka, or kafka\.start latest"):
        begin("2026-11-01T00:00:00Z")
    assert cluster.commits == []
    begin("latest")
    assert len(cluster.commits) == 1


def test_a_static_members_place_is_left_to_the_worker(cluster: Cluster) -> None:
    """A static member that leaves keeps its place until its session runs out."""
    begin(client={"group.instance.id": "worker-1"})
    assert "group.instance.id" not in cluster.settings
    assert cluster.settings["client.id"] == BEGINNER


def test_settings_that_librdkafka_refuses_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a ValueError, which is exit code 2, before anything is connected to."""
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"no\.such"):
        begin(client={"no.such": "x"})


def test_the_default_asks_nothing(cluster: Cluster) -> None:
    """kafka.start earliest is what auto.offset.reset does."""
    assert begin("earliest") == []
    assert cluster.settings == {}
    assert cluster.calls == []
