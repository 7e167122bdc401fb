"""How a shadow run shows how far it is, and when it ends."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from consumer.cli import shadow_progress
from consumer.cli.shadow_progress import ShadowWatch
from consumer.delivery.shadow_plan import PlannedRange
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


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(shadow_progress, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(os, "kill", lambda *of: found.append(of))
    return found


def test_a_run_ends_when_all_of_its_range_is_committed_and_not_before(signals: list[tuple[int, int]]) -> None:
    """Brokers that are away for a moment change nothing."""
    group: Any = Group(10, None, 29, 30)
    ShadowWatch(group, PLAN).run()
    assert group.offsets == []
    assert signals == [(os.getpid(), signal.SIGTERM)]


def test_a_run_that_was_interrupted_gets_no_second_signal(signals: list[tuple[int, int]]) -> None:
    """It would end at once, without draining."""
    group: Any = Group(10)
    watch = ShadowWatch(group, PLAN)
    watch.ended.set()
    watch.run()
    assert signals == []
