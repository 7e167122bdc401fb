"""A whole comparison: F1 of both sides against gold, bounds, and the JSON object."""

from __future__ import annotations

from typing import Any

import pytest
from compared_cases import extracted, voted
from judged_cases import pair

from consumer.evaluation.comparison import as_json, comparison, example_json
from consumer.evaluation.paired_times import Turn

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
SCREEN, PRICE = pair("屏幕", 0, GOOD, "清楚", 2), pair("价格", 5, BAD, "贵", 7)
JUDGED = [
    extracted({SCREEN: 0.9, PRICE: 0.8}, {SCREEN: 0.9}, number=1, gold=[SCREEN, PRICE]),
    extracted({}, {PRICE: 0.6}, number=2, gold=[PRICE]),
    extracted({PRICE: 0.7}, None, number=3, gold=[PRICE]),
    extracted({SCREEN: 0.7}, {SCREEN: 0.7}, number=4, gold=[]),
]


def gains(found: Any) -> dict[tuple[str, str | None], Any]:
    return {(each.task, each.type): each for each in found.gains}


def test_f1_of_both_sides_by_hand() -> None:
    """Old: 3 right of 4 found and 4 there; new: 2 right of 3 found. By type as well."""
    found = gains(comparison(JUDGED))
    whole = found["features", None]
    assert (whole.metric, whole.gold) == ("strict", 4)
    assert (whole.f1.old, whole.f1.new) == pytest.approx((2 * 3 / 8, 2 * 2 / 7))
    assert whole.f1.value == pytest.approx(4 / 7 - 3 / 4)
    assert whole.f1.interval[0] < whole.f1.value < whole.f1.interval[1]
    good, bad = found["features", f"属性词/{GOOD}"], found["features", f"属性词/{BAD}"]
    assert (good.gold, good.f1.old, good.f1.new) == (1, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (bad.gold, bad.f1.old, bad.f1.new) == (3, pytest.approx(4 / 5), pytest.approx(2 / 4))


def test_accuracy_is_the_measure_where_each_text_has_one_class() -> None:
    """2 of 3 against 1 of 3."""
    cases = [
        voted({"good": 0.9}, {"good": 0.9}, number=1, gold="good"),
        voted({"bad": 0.9}, {"good": 0.6}, number=2, gold="bad"),
        voted({"good": 0.9}, {"good": 0.9}, number=3, gold="bad"),
    ]
    whole = gains(comparison(cases))["sentiment", None]
    assert (whole.metric, whole.gold, whole.f1.old, whole.f1.new) == ("accuracy", 3, pytest.approx(2 / 3), 1 / 3)
    (said,) = comparison(cases).crossed(None, 0.3)
    assert said == "accuracy of task sentiment drops by 0.3333, and at most 0.3 is allowed"


def test_the_same_answers_differ_by_nothing() -> None:
    """The interval is nothing, too: the same texts are drawn for both."""
    cases = [extracted({SCREEN: 0.9}, {SCREEN: 0.9}, gold=[SCREEN, PRICE]), extracted({}, {}, gold=[PRICE])]
    whole = gains(comparison(cases))["features", None]
    assert (whole.f1.value, whole.f1.interval) == (0.0, (0.0, 0.0))


def test_without_gold_nothing_is_scored() -> None:
    """Nor where some texts have none."""
    found = comparison([JUDGED[0], extracted({}, {}, number=9)])
    assert (found.gains, found.calibrations) == ((), (None, None))
    assert as_json(found)["gold"] is None


def test_who_failed_is_counted_once() -> None:
    """Each alone, and both."""
    found = comparison([*JUDGED, extracted(None, {}, number=5), extracted(None, None, number=6)])
    assert (found.failed_both, found.failed_old, found.failed_new) == (1, 1, 1)


def test_a_bound_is_crossed_by_what_is_beyond_it_alone() -> None:
    """Agreement here is 2 * 2 / (4 + 3); on the bound is within, whatever floats make of it."""
    found = comparison(JUDGED)
    assert found.crossed(4 / 7, 3 / 4 - 4 / 7) == []
    assert found.crossed(None, None) == []
    assert found.crossed(0.58, 0.17) == [
        "agreement of task features is 0.5714, and at least 0.58 is asked for",
        "F1 of task features drops by 0.1786, and at most 0.17 is allowed",
    ]
    sides = [({"good": 0.9}, {"good": 0.9})] * 7 + [({"good": 0.9}, {"bad": 0.9})] + [({"bad": 0.9}, {"bad": 0.9})] * 2
    tenth = comparison([voted(old, new, number=number, gold="good") for number, (old, new) in enumerate(sides)])
    assert 0.8 - 0.7 > 0.1  # in binary
    assert tenth.crossed(0.9, 0.1) == []


def test_the_json_object_keeps_its_shape() -> None:
    """Scripts read it: new keys may come, these stay. It has no review text."""
    found = as_json(comparison([*JUDGED, extracted(None, {}, number=5, gold=[])], [Turn(5, 1.0, 2.0)]))
    assert {name: type(value).__name__ for name, value in found.items()} == {
        "failed": "dict",
        "agreement": "list",
        "moves": "list",
        "scores": "list",
        "times": "dict",
        "gold": "dict",
    }
    assert found["failed"] == {"both": 0, "old": 1, "new": 1}
    assert found["agreement"][0] == {
        "task": "features",
        "type": None,
        "agreement": 0.5714,
        "interval": found["agreement"][0]["interval"],
        "texts": 5,
        "same": 1,
        "both": 2,
        "only_old": 2,
        "only_new": 1,
    }
    assert set(found["scores"][0]) == {"task", "both", "both_old", "both_new", "shift", "only_old", "only_new"}
    assert found["times"] == {
        "turns": 1,
        "old_ms": {"p50": 200.0, "p95": 200.0},
        "new_ms": {"p50": 400.0, "p95": 400.0},
        "ratio": 2.0,
        "interval": None,
    }
    assert set(found["gold"]["difference"][0]) == {
        *("task", "type", "metric", "old", "new", "difference", "interval", "gold")
    }
    assert found["gold"]["calibration"]["old"]["facts"] == 8
    assert found["gold"]["calibration"]["new"]["facts"] == 6
    (move,) = as_json(comparison([voted({"good": 0.9}, {"bad": 0.9})]))["moves"]
    assert move == {"task": "sentiment", "old": ("good",), "new": ("bad",), "texts": 1}


def test_an_example_has_its_text_and_the_paths_as_results_have_them() -> None:
    """For whoever asks for it."""
    found = example_json(JUDGED[0])
    assert (found["line"], found["task"], found["text"], found["only_new"]) == (1, "features", "text 1", [])
    (only,) = found["only_old"]
    assert only["score"] == 0.8
    assert only["path"][1] == {"type": BAD, "span": "贵", "start": 7, "end": 8}
