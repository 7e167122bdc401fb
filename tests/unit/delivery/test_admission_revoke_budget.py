from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.admission import FLOOR_SECONDS, SAMPLES, UNKNOWN_SECONDS, RevokeBudget, stands_still


def budget(*seconds: float, ceiling: float = 30.0) -> RevokeBudget:
    made = RevokeBudget(ceiling)
    made.observe(seconds)
    return made


def test_a_fast_pipeline_does_not_hold_the_group_behind_a_stuck_record() -> None:
    """One of a hundred took a minute; the others say what is to be expected."""
    assert budget(*[0.05] * 99, 60.0).seconds() == FLOOR_SECONDS


def test_a_slow_pipeline_gets_what_it_needs() -> None:
    """Twice what nearly all of its records took, up to the ceiling."""
    assert budget(*[4.0] * 100).seconds() == 8.0
    assert budget(*[40.0] * 100).seconds() == 30.0


def test_the_quantile_is_reached_by_the_slow_twentieth() -> None:
    """94 of 100 within it are not enough to call the rest stuck, 95 are."""
    assert budget(*[1.0] * 94, *[5.0] * 6).seconds() == 10.0
    assert budget(*[1.0] * 95, *[5.0] * 5).seconds() == 2.0


def test_before_enough_is_durable_nothing_is_concluded() -> None:
    """A few quick first records say nothing of the model's first large batch."""
    assert budget(*[0.05] * 19).seconds() == UNKNOWN_SECONDS
    assert budget(*[0.05] * 20).seconds() == FLOOR_SECONDS
    assert budget(ceiling=3.0).seconds() == 3.0


def test_old_records_are_forgotten() -> None:
    """A model that became faster makes rebalances faster."""
    made = budget(*[20.0] * 1000)
    made.observe([0.1] * SAMPLES)
    assert made.seconds() == FLOOR_SECONDS


@pytest.mark.parametrize("reason", ["outage", "deployment_fault", "output"])
def test_while_nothing_can_become_durable_nothing_is_waited_for(reason: str) -> None:
    """An outage must not hold the group as well; topics that it does not concern go on."""
    assert stands_still("a", {"backpressure": {"a", "b"}, reason: {"a"}})
    assert not stands_still("b", {"backpressure": {"a", "b"}, reason: {"a"}})


@pytest.mark.parametrize("reason", ["backpressure", "draining", "flood", "registry"])
def test_other_pauses_only_stop_the_intake(reason: str) -> None:
    """What is in flight goes on, so it is worth its wait."""
    assert not stands_still("a", {reason: {"a"}})


@given(st.lists(st.floats(0, 1e6), max_size=60), st.floats(0, 100))
def test_the_wait_stays_below_its_ceiling(seconds: list[float], ceiling: float) -> None:
    """Whatever was seen; and above the floor where the ceiling is not lower."""
    wait = budget(*seconds, ceiling=ceiling).seconds()
    assert min(FLOOR_SECONDS, ceiling) <= wait <= ceiling


def test_a_negative_ceiling_is_refused() -> None:
    """It would be a deadline in the past."""
    with pytest.raises(ValueError, match="cannot be negative"):
        RevokeBudget(-1.0)
