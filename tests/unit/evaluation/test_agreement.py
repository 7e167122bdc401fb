"""Agreement of two sides without gold: by hand in a small example, and what holds for any."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from compared_cases import extracted, voted
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_cases import pair

from consumer.evaluation.agreement import agreements, furthest, moves, scores

if TYPE_CHECKING:
    from consumer.evaluation.agreement import Compared

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
SCREEN, PRICE, WHOLE = pair("屏幕", 0, GOOD, "清楚", 2), pair("价格", 5, BAD, "贵", 7), pair("", 0, GOOD, "好", 9)
PRICE_TURNED = pair("价格", 5, GOOD, "贵", 7)

CASES = [
    extracted({SCREEN: 0.9, PRICE: 0.8}, {SCREEN: 0.7, PRICE_TURNED: 0.6}, number=1),
    extracted({WHOLE: 0.9}, {WHOLE: 1.0}, number=2),
    extracted({}, {}, number=3),
    extracted({}, {SCREEN: 0.5}, number=4),
    extracted(None, {SCREEN: 0.5}, number=5),
    extracted(None, None, number=6),
    voted({"good": 0.9}, {"good": 0.8}, number=1),
    voted({"good": 0.9}, {"bad": 0.7}, number=2),
    voted({"good": 0.6}, {"bad": 0.9}, number=3),
    voted({"bad": 0.6}, {"good": 0.6}, number=4),
]


def test_every_count_by_hand() -> None:
    """2 both / (old + new), over all texts of a task together and by type; what both failed on is left out."""
    found = {(each.task, each.type): each for each in agreements(CASES)}
    whole = found["features", None]
    assert (whole.texts, whole.same, whole.old, whole.new, whole.both) == (5, 2, 3, 5, 2)
    assert whole.value == pytest.approx(2 * 2 / (3 + 5))
    good, bad = found["features", f"属性词/{GOOD}"], found["features", f"属性词/{BAD}"]
    assert (good.texts, good.same, good.old, good.new, good.both) == (4, 1, 2, 5, 2)
    assert (bad.texts, bad.same, bad.old, bad.new, bad.both) == (1, 0, 1, 0, 0)
    classes = found["sentiment", None]
    assert (classes.value, classes.texts, classes.same) == (0.25, 4, 1)
    order = [(each.task, each.type) for each in agreements(CASES)]
    assert order == [
        ("features", None),
        *(("features", f"属性词/{name}") for name in (GOOD, BAD)),
        ("sentiment", None),
        ("sentiment", "good"),
        ("sentiment", "bad"),
    ]


def test_an_interval_is_around_the_value() -> None:
    """Wide with five texts; of a side that finds nothing either there is none."""
    (whole, *_) = agreements(CASES)
    assert whole.interval is not None
    low, high = whole.interval
    assert low < whole.value < high
    (nothing,) = agreements([extracted({}, {})])
    assert (nothing.value, nothing.interval, nothing.same) == (1.0, None, 1)


def test_classes_that_changed_are_counted_the_most_frequent_first() -> None:
    """Extraction has none."""
    assert [(each.old, each.new, each.texts) for each in moves(CASES)] == [
        (("good",), ("bad",), 2),
        (("bad",), ("good",), 1),
    ]
    assert {each.task for each in moves(CASES)} == {"sentiment"}


def test_mean_scores_of_what_both_found_and_one_alone() -> None:
    """The last element's. None where there is nothing."""
    features, sentiment = scores(CASES)
    assert (features.task, features.both) == ("features", 2)
    assert features.both_old == pytest.approx(0.9)
    assert features.both_new == pytest.approx((0.7 + 1.0) / 2)
    assert features.shift == pytest.approx((0.2 + 0.1) / 2)
    assert features.only_old == pytest.approx(0.8)
    assert features.only_new == pytest.approx((0.6 + 0.5 + 0.5) / 3)
    assert (sentiment.both, sentiment.both_old, sentiment.both_new) == (1, 0.9, 0.8)
    (nothing,) = scores([extracted({}, {})])
    assert (nothing.both, nothing.shift, nothing.only_old) == (0, None, None)


def test_the_surest_and_most_differences_come_first() -> None:
    """Sums of scores: 1.6, 1.5, 1.4, 1.2, 0.5. What a side could not process is no difference of what was found."""
    assert [(each.task, each.number) for each in furthest(CASES, 9)] == [
        ("sentiment", 2),
        ("sentiment", 3),
        ("features", 1),
        ("sentiment", 4),
        ("features", 4),
    ]
    assert len(furthest(CASES, 2)) == 2


SIDES = st.none() | st.dictionaries(
    st.sampled_from([SCREEN, PRICE, WHOLE, PRICE_TURNED]), st.integers(1, 99).map(lambda score: score / 100)
)
TEXTS = st.lists(
    st.builds(extracted, SIDES, SIDES, task=st.sampled_from(["a", "b"]), number=st.integers(1, 9)), max_size=8
)


def swapped(case: Compared) -> Compared:
    return replace(case, old=case.new, new=case.old)


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_which_side_is_old_does_not_matter(cases: list[Compared]) -> None:
    """Same agreement, same interval; what one side alone found changes places."""
    there, back = agreements(cases), agreements(map(swapped, cases))
    assert [(each.task, each.type, each.value, each.same, each.interval) for each in there] == [
        (each.task, each.type, each.value, each.same, each.interval) for each in back
    ]
    assert [(each.old, each.new) for each in there] == [(each.new, each.old) for each in back]


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_the_texts_does_not_matter(cases: list[Compared], random: object) -> None:
    """To no figure, intervals and means included."""
    mixed = cases.copy()
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert agreements(mixed) == agreements(cases)
    assert scores(mixed) == scores(cases)
    assert moves(mixed) == moves(cases)


def test_an_interval_is_of_the_texts_and_not_of_their_order_or_side() -> None:
    """Of many texts with different counts, where another order draws other ones."""
    rng = np.random.default_rng(11)
    paths = [pair("屏幕", number, GOOD, "好", number + 2) for number in range(6)]
    cases = [
        extracted(*({paths[place]: 0.9 for place in range(6) if rng.random() < 0.4} for _ in range(2)))
        for _ in range(40)
    ]
    mixed = [cases[place] for place in rng.permutation(40)]
    assert agreements(mixed) == agreements(cases)
    assert agreements(map(swapped, cases))[0].interval == agreements(cases)[0].interval


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_the_same_answers_agree_wholly(cases: list[Compared]) -> None:
    """Empty ones, too."""
    same = [replace(case, new=case.old) for case in cases]
    for each in agreements(same):
        assert each.value == 1.0
        assert each.same == each.texts
        assert each.interval in (None, (1.0, 1.0))
    assert furthest(same, 9) == []


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_counts_add_up(cases: list[Compared]) -> None:
    """Types to their task, and no share is beyond its whole."""
    found = agreements(cases)
    for whole in (each for each in found if each.type is None):
        types = [each for each in found if each.task == whole.task and each.type is not None]
        for name in ("old", "new", "both"):
            assert sum(getattr(each, name) for each in types) == getattr(whole, name)
        assert 0 <= whole.both <= min(whole.old, whole.new)
        assert 0 <= whole.value <= 1
        assert whole.same <= whole.texts
