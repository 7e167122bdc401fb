"""Precision, recall, F1, accuracy and macro F1, with their bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from consumer.evaluation.figures import counted, f1_difference, f1_figure, macro_figure, share_figure
from consumer.evaluation.intervals import Resamples, interval


def test_precision_recall_and_f1_are_over_all_texts_together() -> None:
    """Micro: a text with many paths weighs more."""
    counts = counted([({"x", "y", "z"}, {"x"}), ({"x"}, {"x", "y"}), (set(), {"z"})])
    figure = f1_figure("all", "paths", counts, Resamples(3))
    assert (figure.predicted, figure.support, figure.correct, figure.texts) == (4, 4, 2, 3)
    assert (figure.values["precision"], figure.values["recall"], figure.main) == (0.5, 0.5, 0.5)
    uneven = f1_figure("all", "paths", counted([({1, 2}, {1}), (set(), {2, 3})]), Resamples(2))
    assert [uneven.values[name] for name in ("precision", "recall")] == pytest.approx([1 / 2, 1 / 3])
    assert uneven.main == pytest.approx(2 / 5)


def test_without_offsets_there_is_a_second_set_of_values() -> None:
    """The counts of a figure are those with offsets."""
    strict, span = np.array([[2, 2, 1]]), np.array([[2, 2, 2]])
    figure = f1_figure("all", "paths", strict, Resamples(1), span)
    assert (figure.main, figure.values["span_f1"], figure.correct) == (0.5, 1.0, 1)
    assert (figure.intervals["f1"], figure.intervals["span_f1"]) == ((0.5, 0.5), (1.0, 1.0))


def test_nothing_predicted_and_nothing_wanted_is_no_division_by_zero() -> None:
    """All zeros, and no interval."""
    nothing = counted([(set(), set())])
    assert set(f1_figure("all", "paths", nothing, Resamples(1)).values.values()) == {0.0}
    assert f1_figure("all", "paths", nothing, Resamples(1)).interval is None
    assert share_figure("all", "accuracy", "accuracy", counted([]), Resamples(0)).main == 0.0
    assert macro_figure("all", "macro F1", [], Resamples(0)).main == 0.0


def test_macro_f1_is_the_mean_over_classes_that_occur() -> None:
    """A class of one text counts as much as one of many; a class that nobody has or predicts does not count."""
    perfect, missed, absent = (
        np.array(rows) for rows in ([[1, 1, 1]] * 4, [[0, 0, 0]] * 3 + [[0, 1, 0]], [[0] * 3] * 4)
    )
    figure = macro_figure("all", "macro F1", [perfect, missed, absent], Resamples(4))
    assert (figure.main, figure.support) == (0.5, 4)
    assert figure.interval == (0.5, 1.0)  # without the last text, the missed class is not there


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Accuracy of 0.8 on 200 texts, measured a hundred times: 95 % intervals miss it in a few cases."""
    rng = np.random.default_rng(3)
    draws = Resamples(200, resamples=400)
    hits = 0
    for _ in range(100):
        right = rng.random(200) < 0.8
        counts = np.stack((np.ones(200, int), np.ones(200, int), right.astype(int)), axis=1)
        low, high = share_figure("all", "accuracy", "accuracy", counts, draws).interval or (0, 0)
        hits += low <= 0.8 <= high
    assert 88 <= hits < 100


def test_an_interval_is_that_of_the_binomial_it_resamples() -> None:
    """Of 400 texts with 0.75 right: 0.75 plus and minus 1.96 standard errors of 0.0217."""
    counts = np.array([[1, 1, number % 4 > 0] for number in range(400)])
    assert share_figure("all", "a", "a", counts, Resamples(400)).interval == pytest.approx((0.7075, 0.7925), abs=0.006)


def test_facts_of_a_text_are_drawn_together() -> None:
    """Twenty texts of fifty facts are twenty observations, not a thousand."""
    together = np.array([[50, 50, 50 * (number % 2)] for number in range(20)])
    low, high = f1_figure("all", "paths", together, Resamples(20)).interval or (0, 0)
    assert high - low > 0.35


def test_draws_repeat_themselves() -> None:
    """The same file gives the same interval, in every run and for every figure."""
    counts = np.array([[1, 1, number % 3 > 0] for number in range(50)])
    assert (Resamples(50).sums(counts) == Resamples(50).sums(counts)).all()
    assert Resamples(50).sums(np.ones((50, 1), int)).tolist() == [[50.0] * 1000]


def test_no_text_of_many_is_left_out_of_a_sum() -> None:
    """They are summed some thousands at a time."""
    assert Resamples(20_000, resamples=2).sums(np.ones((20_000, 1), int)).tolist() == [[20_000.0] * 2]


def test_unknown_values_are_left_out_of_an_interval() -> None:
    """Draws in which the figure does not exist."""
    assert interval(np.array([np.nan, 0.5, 0.5])) == (0.5, 0.5)
    assert interval(np.array([np.nan])) is None


def test_the_interval_of_a_difference_is_of_the_same_texts_for_both() -> None:
    """Two models that miss the same hard texts, one of them one more: what both miss cancels out."""
    hard = np.tile([[1, 1, 0], [1, 1, 1]], (50, 1))
    worse = hard.copy()
    worse[1] = [1, 1, 0]
    found = f1_difference(hard, worse, Resamples(100))
    assert (found.old, found.new) == (0.5, 0.49)
    assert found.value == pytest.approx(-0.01)
    assert found.interval is not None
    assert found.interval[0] >= -0.04
    assert found.interval[1] == 0
    alone = f1_figure("all", "paths", hard, Resamples(100)).interval
    assert alone is not None
    assert alone[1] - alone[0] > 0.15


def test_a_difference_is_not_of_the_order_of_texts() -> None:
    """And changes its sign with the sides; without anything found or wanted there is none."""
    rng = np.random.default_rng(5)
    old, new = (np.stack((*rng.integers(1, 4, (2, 30)), rng.integers(0, 2, 30)), axis=1) for _ in range(2))
    new[:, 1] = old[:, 1]
    mixed = rng.permutation(30)
    there, back = f1_difference(old, new, Resamples(30)), f1_difference(new, old, Resamples(30))
    assert f1_difference(old[mixed], new[mixed], Resamples(30)) == there
    assert back.value == -there.value
    assert f1_difference(old * 0, new * 0, Resamples(30)).interval is None


def test_intervals_of_differences_hold_the_truth_as_often_as_they_say() -> None:
    """Two models of the same accuracy: the interval is beside 0 in about one of twenty cases."""
    rng = np.random.default_rng(7)
    resamples = Resamples(200, resamples=400)
    beside = 0
    for _ in range(100):
        sides = (rng.random((2, 200)) < 0.8).astype(int)
        old, new = (np.stack((np.ones(200, int), np.ones(200, int), right), axis=1) for right in sides)
        low, high = f1_difference(old, new, resamples).interval or (1, 1)
        beside += not low <= 0 <= high
    assert 0 < beside < 13
