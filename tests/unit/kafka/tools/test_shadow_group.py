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


class _Reader:
    """Answers all questions with the offset 5, and for partition 1 with an error."""

    code = KafkaError.NOT_LEADER_FOR_PARTITION

    def __init__(self, *_: object, **__: object) -> None:
        self.consumer = self

    def offsets_for_times(self, *_: object, **__: object) -> list[Any]:
        errors = None, KafkaError(self.code)
        return [
            SimpleNamespace(topic=topic, partition=number, offset=5, metadata="", error=error)
            for (topic, number), error in zip(PLACES, errors, strict=True)
        ]

    committed = commit = offsets_for_times

    def partitions(self, _: str) -> list[int]:
        return [0, 1]

    def unreachable(self) -> ClusterUnreachable:
        return ClusterUnreachable("away")

    def close(self) -> None:
        pass

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> ShadowGroup:
    monkeypatch.setattr(shadow_group, "Reader", _Reader)
    return ShadowGroup("127.0.0.1:1", "g.shadow", {}, 1.0)


def test_a_partition_without_an_answer_is_not_planned_as_an_empty_one(group: ShadowGroup) -> None:
    """What the brokers answered is said, not that none did."""
    with pytest.raises(ClusterUnreachable, match=r"NOT_LEADER_FOR_PARTITION for group .g[.]shadow"):
        group.positions(PLACES, 1000, end=True)


def test_a_plan_of_which_a_part_is_not_read_is_not_taken_for_none(group: ShadowGroup) -> None:
    with pytest.raises(ClusterUnreachable):
        group.plan(["reviews"])


def test_a_plan_of_which_a_part_is_not_kept_is_not_begun_with(group: ShadowGroup) -> None:
    with pytest.raises(ClusterUnreachable):
        group.begin({place: PlannedRange(0, 9, dict.fromkeys(ASKED, "")) for place in PLACES})


def test_a_coordinator_that_loads_is_waited_for(group: ShadowGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart of a broker."""
    codes = [KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.NO_ERROR]

    def answer(*_: object, **__: object) -> list[Any]:
        if code := codes.pop(0):
            raise KafkaException(KafkaError(code))
        return []

    monkeypatch.setattr(shadow_group, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(_Reader, "committed", answer)
    assert group.committed(PLACES) == {}
    assert codes == []


def test_a_right_that_is_missing_is_named(group: ShadowGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Reader, "code", KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(TopicUnusable, match=r"READ on the groups g[.]shadow and g[.]shadow[.]plan"):
        group.committed(PLACES)


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION])
def test_a_topic_that_was_deleted_meanwhile_is_named(
    group: ShadowGroup, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """By the brokers first, and by the client once it has heard of it. A topic that is there is not said to be gone."""
    monkeypatch.setattr(_Reader, "code", code)
    with pytest.raises(ClusterUnreachable):
        group.positions(PLACES, None, end=False)
    monkeypatch.setattr(_Reader, "partitions", lambda *_: [])
    assert group.gone(["reviews"]) == ["reviews"]
    with pytest.raises(TopicUnusable, match=r"topic 'reviews' of the run of group 'g[.]shadow' is gone.*shadow drop"):
        group.positions(PLACES, None, end=False)
