"""Times of two sides that were asked in turns."""

from __future__ import annotations

import pytest

from consumer.evaluation.paired_times import Turn, paired_times


def test_the_ratio_is_the_median_over_turns_without_the_first() -> None:
    """By hand: ratios 2, 1.5 and 3 of turns of 10 extractions; the first turn warms up."""
    turns = [Turn(10, 9.0, 0.1), Turn(10, 1.0, 2.0), Turn(10, 2.0, 3.0), Turn(10, 1.0, 3.0)]
    found = paired_times(turns)
    assert found is not None
    assert (found.turns, found.ratio, found.old.p50, found.new.p50) == (3, 2.0, 100.0, 300.0)
    assert found.old.p95 == pytest.approx(190.0)
    assert found.interval == (1.5, 3.0)


def test_a_pause_of_the_machine_changes_no_ratio() -> None:
    """It is in both times of its turn."""
    quiet = [Turn(5, 1.0, 1.2)] * 6
    busy = [turn if number % 2 else Turn(5, 7.0, 8.4) for number, turn in enumerate(quiet)]
    both = [paired_times(turns) for turns in (quiet, busy)]
    assert [each.ratio for each in both if each is not None] == pytest.approx([1.2, 1.2])


def test_one_turn_is_measured_and_none_is_not() -> None:
    """Without an interval: it may be chance."""
    found = paired_times([Turn(1, 2.0, 1.0)])
    assert found is not None
    assert (found.turns, found.ratio, found.interval) == (1, 0.5, None)
    assert paired_times([]) is None
    assert paired_times([Turn(0, 0.0, 0.0)]) is None


def test_the_order_of_turns_does_not_matter_but_for_the_first() -> None:
    """The interval neither."""
    first, *turns = (Turn(4, 1.0, 1.0 + number / 7) for number in range(9))
    assert paired_times([first, *turns]) == paired_times([first, *reversed(turns)])
