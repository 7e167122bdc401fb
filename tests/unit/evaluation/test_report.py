"""The report as a whole, and as JSON and CSV."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from judged_cases import case, classified, pair

from consumer.evaluation.report import CSV_HEADER, Training, as_json, csv_rows, example_json, measured
from consumer.evaluation.worst import worst

if TYPE_CHECKING:
    from consumer.evaluation.paths import Case

A, B = pair("盖", 0, "好", "紧", 1), pair("瓶", 3, "坏", "漏", 4)


def reviews(count: int) -> list[Case]:
    """Praise and blame that a baseline tells apart; every tenth is predicted wrong."""
    cases = []
    for number in range(count):
        names = ("好评", "差评") if number % 2 else ("差评", "好评")
        text = f"{'很好用' if number % 2 else '太差了'}{number}"
        cases.append(classified(names[:1], {names[number % 10 == 0]: 0.95}, text))
    return cases


def test_extraction_and_classification_have_figures_of_their_own() -> None:
    """In one file of both, the headline is over all."""
    report = measured([case([A, B], [A]), classified(["好评"], {"好评": 0.9})], "strict")
    assert (report.headline.support, report.headline.correct) == (3, 2)
    names = [(figure.section, figure.name, figure.support) for figure in report.figures]
    assert ("all", "paths", 2) in names
    assert ("all", "accuracy", 1) in names
    assert measured([case([A], [A])], "strict").baseline is None


@pytest.mark.parametrize(
    ("cases", "training", "words", "figures"),
    [
        (reviews(60), None, "5-fold cross-validation on these 60 texts", 2),
        (reviews(49), None, "left out: 49 texts, and 50 are needed", 0),
        (
            [classified(["好评"], {}, str(number)) for number in range(60)],
            None,
            "left out: the number of classes is 1,",
            0,
        ),
        ([classified([str(n)], {}, str(n)) for n in range(513)], None, "left out: the number of classes is 513,", 0),
        (reviews(4), Training(["真好", "真差"], [frozenset({"好评"}), frozenset({"差评"})]), "trained on 2 texts", 2),
        (
            reviews(4),
            Training(["太差了0", "真差", "真好"], [frozenset({"差评"}), frozenset({"差评"}), frozenset({"好评"})]),
            "trained on 2 texts (1 that are to be scored were left out)",
            2,
        ),
        (
            reviews(2),
            Training(["太差了0", "很好用1"], [frozenset({"差评"}), frozenset({"好评"})]),
            "left out: all texts to train on are among those to be scored",
            0,
        ),
    ],
    ids=["folds", "few", "one-class", "many-classes", "given", "given-overlap", "given-all"],
)
def test_the_report_says_what_the_baseline_learned_from(
    cases: list[Case], training: Training | None, words: str, figures: int
) -> None:
    """And never trains on what it is measured on."""
    baseline = measured(cases, "accuracy", training).baseline
    assert baseline is not None
    assert baseline.trained_on.startswith(words)
    assert len(baseline.figures) == figures


def test_the_baseline_is_measured_on_the_same_texts_by_the_same_figures() -> None:
    """It learns the texts' own words here, and the model is wrong in one of ten."""
    report = measured(reviews(60), "accuracy")
    assert report.baseline is not None
    assert [(figure.section, figure.name, figure.main) for figure in report.baseline.figures] == [
        ("baseline", "accuracy", 1.0),
        ("baseline", "macro F1", 1.0),
    ]
    assert report.headline.main == 0.9


def test_json_holds_everything() -> None:
    """With the keys that were there before at the top."""
    whole = json.loads(json.dumps(as_json(measured(reviews(60), "accuracy", notes=["so"]), temperature=2.0)))
    assert (whole["metric"], whole["accuracy"], whole["correct"]) == ("accuracy", 0.9, 54)
    low, high = whole["interval"]
    assert low < 0.9 < high
    assert whole["confusion"] == {"classes": ["好评", "差评"], "counts": [[30, 0, 0], [6, 24, 0]]}
    assert [bin_["facts"] for bin_ in whole["calibration"]["bins"] if bin_["facts"]] == [60]
    fitted = as_json(measured(reviews(60), "accuracy"))["temperature"]
    assert whole["temperature"] == whole["calibration"]["temperature"] == pytest.approx(2 * fitted, rel=1e-3)
    assert whole["baseline"]["figures"][0]["accuracy"] == 1.0
    assert whole["notes"] == ["so"]
    paths = as_json(measured([case([A, B], [A])], "strict"))
    assert {name: paths[name] for name in ("metric", "precision", "recall", "f1", "predicted", "gold", "correct")} == {
        "metric": "strict",
        "precision": 1.0,
        "recall": 0.5,
        "f1": 0.6667,
        "predicted": 1,
        "gold": 2,
        "correct": 1,
    }
    assert (paths["confusion"], paths["baseline"], paths["temperature"]) == (None, None, None)
    assert paths["figures"][0]["intervals"]["span_f1"] == [0.6667, 0.6667]


def test_csv_has_a_row_for_each_number() -> None:
    """Intervals beside the values that have one."""
    rows = list(csv_rows(measured(reviews(60), "accuracy")))
    assert {len(row) for row in rows} == {len(CSV_HEADER)}
    by_name = {row[:3]: row[3:] for row in rows}
    assert by_name["all", "accuracy", "accuracy"][0] == 0.9
    low, high = by_name["all", "accuracy", "accuracy"][1:3]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert by_name["class", "差评", "recall"] == (0.8, "", "", 30)
    assert by_name["confusion", "差评", "好评"] == (6, "", "", 30)
    assert by_name["calibration", "", "mean_score"] == (0.95, "", "", 60)
    assert by_name["baseline", "macro F1", "macro_f1"][0] == 1.0
    assert ("calibration", "0.90-0.95", "share_right") in by_name
    silent = replace(reviews(1)[0], predicted={})
    assert ("confusion", "差评", "none") in {row[:3] for row in csv_rows(measured([silent], "accuracy"))}


def test_an_example_has_its_paths_as_results_have_them() -> None:
    """With the scores of what was invented."""
    found = example_json(worst([case([A], [B])], 1)[0])
    assert found["missing"] == [
        [
            {"type": "属性词", "span": "盖", "start": 0, "end": 1},
            {"type": "好", "span": "紧", "start": 1, "end": 2},
        ]
    ]
    assert found["invented"][0]["score"] == 0.9
    assert found["invented"][0]["path"][1]["span"] == "漏"
