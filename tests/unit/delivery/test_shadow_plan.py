"""A shadow run's plan, its progress and its pace."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.config.shadow import shadow_config
from consumer.config.tree import Config
from consumer.delivery.shadow_plan import (
    Deleted,
    Pace,
    PlannedRange,
    PlanUnreadable,
    Progress,
    checksums,
    differences,
    marks,
    progress,
    replaced,
)
from consumer.events import Partition

ASKED = checksums({"times": ["earliest", "now"], "routes": [], "model": ["m", 1, None], "tasks": {}})
ONE, TWO = Partition("in", 0), Partition("in", 1)


def test_a_note_is_read_back() -> None:
    """With the end that it stands beside."""
    for planned in (PlannedRange(3, 9, ASKED), PlannedRange(3, 9, ASKED, marks({"out": "x"}))):
        assert PlannedRange.read(9, planned.note()) == planned


@pytest.mark.parametrize("note", ["", "rexstream start 00000000", '{"format": 2}', '{"format": 1}', "[]"])
def test_another_note_is_refused(note: str) -> None:
    """A newer release's, and what is none."""
    with pytest.raises(PlanUnreadable):
        PlannedRange.read(9, note)


def test_what_differs_is_named() -> None:
    """And nothing else."""
    other = checksums({"times": ["earliest", "now"], "routes": [], "model": ["m", 2, None], "tasks": {}})
    plan = {ONE: PlannedRange(0, 5, ASKED)}
    assert differences(plan, ASKED) == []
    assert differences(plan, other) == ["model"]


def test_a_topic_that_was_created_again_is_another() -> None:
    """Also where hundreds of topics are noted. A plan of a release that noted none says nothing."""
    ids = {f"reviews.task-{number}": f"id {number}" for number in range(500)}
    planned = PlannedRange(0, 5, ASKED, marks(ids))
    assert len(planned.note()) < 4096
    assert replaced({ONE: planned}, ids) == []
    assert replaced({ONE: planned}, {**ids, "reviews.task-7": "another"}) == ["reviews.task-7"]
    assert replaced({ONE: PlannedRange(0, 5, ASKED)}, ids) == []


def test_progress_is_within_the_range() -> None:
    """Offsets behind the end, which live records have, count no more than the end."""
    plan = {ONE: PlannedRange(10, 20, ASKED), TWO: PlannedRange(4, 4, ASKED)}
    assert progress(plan, {}) == Progress(0, 10)
    assert progress(plan, {ONE: 15}) == Progress(5, 10)
    assert not progress(plan, {ONE: 19, TWO: 50}).is_complete
    assert progress(plan, {ONE: 99, TWO: 50}).is_complete


def test_records_that_were_deleted_before_they_were_done_are_counted_once() -> None:
    """Of the range alone, however often one looks, and a second deletion besides."""
    deleted = Deleted({ONE: PlannedRange(10, 100, ASKED), TWO: PlannedRange(0, 5, ASKED)})
    deleted.look({ONE: 20}, {ONE: 20, TWO: 0})
    assert deleted.offsets == 0
    for _ in range(2):
        deleted.look({ONE: 20}, {ONE: 30})
    assert deleted.offsets == 10
    deleted.look({ONE: 60}, {ONE: 50})
    deleted.look({ONE: 60}, {ONE: 70, TWO: 9})
    assert deleted.offsets == 10 + 10 + 5


@given(rate=st.floats(0.1, 1000), steps=st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_no_more_records_than_the_rate_allows(rate: float, steps: list[float]) -> None:
    """Whenever they arrive: neighbours are at least 1 / rate apart."""
    pace, now, at = Pace(rate), 100.0, []
    for step in steps:
        now += step
        at.append(now + pace.wait(now))
    assert all(later - sooner >= 1 / rate - 1e-6 for sooner, later in pairwise(at))


def test_a_shadow_writes_to_no_live_topic_and_commits_for_no_live_group() -> None:
    """Outputs, dead letters and the group have names of their own; the rest is as configured."""
    live = Config()
    shadow = shadow_config(live, ["reviews.raw"], 10.0)
    (route,) = shadow.routes
    assert (route.input, route.output, route.lane) == ("reviews.raw", "reviews.extracted.shadow", "backfill")
    assert shadow.kafka.group_id == f"{live.kafka.group_id}.shadow"
    assert shadow.delivery.dead_letter_topic == "reviews.dead.shadow"
    assert (shadow.limits.in_flight_events, shadow.batching.max_in_flight) == (50, 1)
    assert shadow.batching.max_tokens == live.batching.max_tokens
    assert shadow.model == live.model
    spared = shadow_config(live, ["reviews.raw"], share=0.1)
    assert (spared.limits.in_flight_events, spared.batching.max_tokens) == (32, 1638)
    with pytest.raises(ValueError, match=r"its inputs are reviews\.raw"):
        shadow_config(live, ["other"], None)
