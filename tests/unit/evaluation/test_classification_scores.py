"""Figures of classification: accuracy, macro and micro F1, classes and confusion."""

from __future__ import annotations

import pytest
from judged_cases import case, classified, path

from consumer.evaluation.classification_scores import (
    MOST_CLASSES,
    Labelled,
    class_figures,
    classification_figures,
    confusion,
)
from consumer.evaluation.intervals import Resamples

SINGLE = [
    classified(["书"], {"书": 0.9}),
    classified(["书"], {"书": 0.9}),
    classified(["书"], {"衣": 0.8}),
    classified(["衣"], {"衣": 0.9}),
    classified(["衣"], {}),
]


def test_one_class_a_text_has_accuracy_macro_f1_and_confusion() -> None:
    """Rows are the gold, columns predictions, the last one for nothing predicted."""
    labelled = Labelled.of(SINGLE)
    figures = classification_figures(labelled, Resamples(5))
    assert [(figure.name, round(figure.main, 4)) for figure in figures] == [("accuracy", 0.6), ("macro F1", 0.65)]
    found = confusion(labelled)
    assert found is not None
    assert (found.classes, found.counts) == (("书", "衣"), ((2, 1, 0), (0, 1, 1)))


def test_each_class_has_precision_recall_f1_and_support() -> None:
    """The most frequent class first."""
    books, clothes = class_figures(Labelled.of(SINGLE), Resamples(5))
    assert books.name == "书"
    assert [books.values["precision"], books.values["recall"], books.support] == pytest.approx([1, 2 / 3, 3])
    assert (clothes.name, clothes.main, clothes.support) == ("衣", 0.5, 2)


def test_several_labels_have_micro_f1_and_no_confusion() -> None:
    """A text is accurate with exactly its classes."""
    cases = [
        classified(["快", "好"], {"快": 0.9, "好": 0.9}, kind="multi_classify"),
        classified(["快", "好"], {"快": 0.9}, kind="multi_classify"),
    ]
    figures = {figure.name: figure for figure in classification_figures(Labelled.of(cases), Resamples(2))}
    assert list(figures) == ["accuracy", "micro F1", "macro F1"]
    assert figures["accuracy"].main == 0.5
    assert figures["micro F1"].main == pytest.approx(6 / 7)
    assert figures["macro F1"].main == pytest.approx((1 + 2 / 3) / 2)
    assert confusion(Labelled.of(cases)) is None
    assert confusion(Labelled.of([classified(["快", "好"], {"快": 0.9})])) is None


def test_so_many_classes_that_no_schema_level_has_them_have_no_confusion() -> None:
    """Its matrix would be larger than the data."""
    cases = [classified([str(number)], {}, str(number)) for number in range(MOST_CLASSES + 1)]
    assert confusion(Labelled.of(cases[:-1])) is not None
    assert confusion(Labelled.of(cases)) is None


def test_a_class_that_is_only_predicted_has_a_column() -> None:
    """It would be lost otherwise."""
    found = confusion(Labelled.of([classified(["书"], {"酒店": 0.7})]))
    assert found is not None
    assert (found.classes, found.counts) == (("书", "酒店"), ((0, 1, 0), (0, 0, 0)))


def test_nested_classes_are_told_apart_by_their_path() -> None:
    """质量 below 商品 is not 质量 below 服务."""
    goods, service = (path((top, None, None), ("质量", None, None)) for top in ("商品", "服务"))
    labelled = Labelled.of([case([goods], [service], kind="classify")])
    assert (labelled.gold, labelled.predicted) == ((frozenset({"商品/质量"}),), (frozenset({"服务/质量"}),))
