"""How a shadow run shows how far it is, and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from consumer.cli import shadow_progress
from consumer.cli.shadow_progress import ShadowWatch
from consumer.delivery.shadow_plan import Deleted, PlannedRange
from consumer.events import Partition
from consumer.kafka.clients.cluster import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = Partition("in", 0)
PLAN = {PLACE: PlannedRange(10, 30, {})}


class Group:
    """Its offsets, one after the other; None where the brokers are away."""

    def __init__(self, *offsets: int | None) -> None:
        self.offsets = list(offsets)

    def committed(self, plan: Mapping[Partition, PlannedRange]) -> dict[Partition, int]:  # noqa: ARG002
        offset = self.offsets.pop(0)
        if offset is None:
            raise ClusterUnreachable("away")
        return {PLACE: offset}

    def positions(self, *_: object, **__: object) -> dict[Partition, int]:
        return {}


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_progress, "LOOK_SECONDS", 0.0)


def test_a_run_ends_when_all_of_its_range_is_committed_and_not_before() -> None:
    """Brokers that are away for a moment change nothing."""
    group: Any = Group(10, None, 29, 30)
    ends: list[int] = []
    ShadowWatch(group, PLAN, Deleted(PLAN), lambda: ends.append(len(group.offsets))).run()
    assert ends == [0]


def test_brokers_that_are_away_for_long_are_not_reported_at_every_look() -> None:
    """A line every ten seconds, as of the progress: an hour would be thousands."""
    group: Any = Group(None, None, None, 30)
    with capture_logs() as logged:
        ShadowWatch(group, PLAN, Deleted(PLAN), lambda: None).run()
    assert [each["event"] for each in logged] == ["how far the run is cannot be seen now", "shadow"]


def test_a_worker_that_has_ended_is_not_ended_again() -> None:
    """Its event loop is closed."""
    group: Any = Group(10)
    ends: list[int] = []
    watch = ShadowWatch(group, PLAN, Deleted(PLAN), lambda: ends.append(1))
    watch.ended.set()
    watch.run()
    assert ends == []
