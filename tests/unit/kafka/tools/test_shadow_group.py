"""What a shadow run does with an answer that has an error for one partition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.delivery.shadow_plan import ASKED, PlannedRange
from consumer.events import Partition
from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable
from consumer.kafka.tools import shadow_group
from consumer.kafka.tools.shadow_group import ShadowGroup

PLACES = [Partition("reviews", 0), Partition("reviews", 1)]


class _Cluster:
    """Both clients. Answers all questions with the offset 5, and for partition 1 with an error."""

    code = KafkaError.NOT_LEADER_FOR_PARTITION

    def __init__(self, *_: object, **__: object) -> None:
        self.consumer = self

    def offsets_for_times(self, *_: object, **__: object) -> list[Any]:
        errors = None, KafkaError(self.code)
        return [
            SimpleNamespace(topic=topic, partition=number, offset=5, metadata="", error=error)
            for (topic, number), error in zip(PLACES, errors, strict=True)
        ]

    def list_consumer_group_offsets(self, asked: list[Any], **_: object) -> dict[str, Any]:
        answer = SimpleNamespace(topic_partitions=self.offsets_for_times())
        return {each.group_id: SimpleNamespace(result=lambda: answer) for each in asked}

    alter_consumer_group_offsets = list_consumer_group_offsets

    def partitions(self, _: str) -> list[int]:
        return [0, 1]

    def unreachable(self) -> ClusterUnreachable:
        return ClusterUnreachable("away")

    def close(self) -> None:
        pass


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> ShadowGroup:
    monkeypatch.setattr(shadow_group, "Reader", _Cluster)
    monkeypatch.setattr(shadow_group, "AdminClient", _Cluster)
    return ShadowGroup("127.0.0.1:1", "g.shadow", {}, 1.0)


def test_a_partition_without_an_answer_is_not_planned_as_an_empty_one(group: ShadowGroup) -> None:
    with pytest.raises(ClusterUnreachable):
        group.positions(PLACES, 1000, end=True)


def test_a_plan_of_which_a_part_is_not_read_is_not_taken_for_none(group: ShadowGroup) -> None:
    with pytest.raises(ClusterUnreachable):
        group.plan(["reviews"])


def test_a_plan_of_which_a_part_is_not_kept_is_not_begun_with(group: ShadowGroup) -> None:
    with pytest.raises(ClusterUnreachable):
        group.begin({place: PlannedRange(0, 9, dict.fromkeys(ASKED, "")) for place in PLACES})


def test_a_coordinator_that_loads_is_waited_for(group: ShadowGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart of a broker: for consumers the client does so by itself."""
    codes = [KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.NO_ERROR]

    def answer(_: object, asked: list[Any], **__: object) -> dict[str, Any]:
        code = codes.pop(0)

        def result() -> Any:
            if code:
                raise KafkaException(KafkaError(code))
            return SimpleNamespace(topic_partitions=[])

        return {asked[0].group_id: SimpleNamespace(result=result)}

    monkeypatch.setattr(shadow_group, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(_Cluster, "list_consumer_group_offsets", answer)
    assert group.committed(PLACES) == {}
    assert codes == []


def test_a_right_that_is_missing_is_named(group: ShadowGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Cluster, "code", KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(TopicUnusable, match=r"READ on the groups g[.]shadow and g[.]shadow[.]plan"):
        group.committed(PLACES)
