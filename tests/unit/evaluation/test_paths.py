"""Which paths count as the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from judged_cases import path

from consumer.evaluation.paths import METRICS, class_of, reduced

if TYPE_CHECKING:
    from consumer.evaluation.paths import Metric, NamedPath

GOLD = path(("a", "x", 0), ("p(o)", "y", 3))


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        (GOLD, {"strict", "span", "triplet", "trigger", "argument", "accuracy"}),
        (path(("a", "x", 7), ("p(o)", "y", 9)), {"span", "triplet", "argument", "accuracy"}),
        (path(("a", "x", 0), ("p(q)", "y", 3)), {"triplet", "trigger"}),
        (path(("a", "z", 5), ("p(o)", "y", 9)), {"argument", "accuracy"}),
        (path(("a", "x", 0), ("p(o)", "w", 3)), {"trigger", "accuracy"}),
        (path(("a", "x", 0)), {"trigger"}),
    ],
    ids=["equal", "elsewhere", "other-bracket", "other-aspect", "other-opinion", "no-opinion"],
)
def test_each_metric_compares_its_part_of_a_path(ours: NamedPath, same: set[Metric]) -> None:
    """From everything (strict) down to the types alone (accuracy)."""
    assert {metric for metric in METRICS if reduced(metric, [ours]) == reduced(metric, [GOLD])} == same


def test_the_class_of_a_path_has_all_its_levels() -> None:
    """Two classes of one name below different ones are two classes."""
    assert class_of(path(("服务", None, None), ("物流", None, None))) == "服务/物流"
