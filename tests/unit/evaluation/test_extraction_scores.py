"""Figures of extraction: levels, types, several aspects and quadruples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from judged_cases import case, pair, path

from consumer.evaluation.extraction_scores import (
    FIRST,
    LAST,
    SEVERAL,
    explicit_aspects,
    extraction_figures,
    quadruple_figures,
)
from consumer.evaluation.intervals import Resamples

if TYPE_CHECKING:
    from consumer.evaluation.figures import Figure
    from consumer.evaluation.paths import Case

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
SCREEN, PRICE = pair("屏幕", 0, GOOD, "清楚", 2), pair("价格", 5, BAD, "贵", 7)
WHOLE = pair("", 0, GOOD, "好", 3)


def figures(*cases: Case) -> dict[tuple[str, str], Figure]:
    return {(figure.section, figure.name): figure for figure in extraction_figures(cases, Resamples(len(cases)))}


def test_strict_and_span_stand_side_by_side() -> None:
    """The same words at another place are right without offsets only."""
    found = figures(case([SCREEN, PRICE], [SCREEN, pair("价格", 9, BAD, "贵", 11)]))["all", "paths"]
    assert (found.main, found.values["span_f1"], found.correct) == (0.5, 1.0, 1)


def test_levels_are_scored_alone() -> None:
    """An opinion given to the wrong aspect costs the pair, and not the opinion with its polarity."""
    found = figures(case([SCREEN, PRICE], [pair("屏幕", 0, BAD, "贵", 7), pair("屏幕", 0, GOOD, "清楚", 2)]))
    assert (found["all", "paths"].correct, found["all", "paths"].predicted) == (1, 2)
    first, last = found["all", FIRST], found["all", LAST]
    assert (first.predicted, first.support, first.correct) == (1, 2, 1)
    assert (last.predicted, last.support, last.correct) == (2, 2, 2)
    lone = figures(case([SCREEN, path(("属性词", "盖", 9))], []))
    assert (lone["all", FIRST].support, lone["all", LAST].support) == (2, 1)  # an aspect alone has no opinion


def test_types_are_those_of_last_elements_the_most_frequent_first() -> None:
    """The polarity of pairs. A wrong polarity counts against both."""
    found = figures(case([SCREEN, WHOLE, PRICE], [SCREEN, WHOLE, pair("价格", 5, GOOD, "贵", 7)]))
    names = [name for section, name in found if section == "type"]
    assert names == [GOOD, BAD]
    good, bad = found["type", GOOD], found["type", BAD]
    assert [good.values["precision"], good.values["recall"], good.support] == pytest.approx([2 / 3, 1, 2])
    assert (bad.main, bad.predicted, bad.support) == (0.0, 0, 1)
    assert not any(section == "first_type" for section, _ in found)


def test_several_first_types_have_a_section_of_their_own() -> None:
    """Relations: subjects of two types."""
    person, firm = path(("人物", "甲", 0), ("出生地", "京", 1)), path(("机构", "乙", 3), ("总部", "沪", 4))
    found = figures(case([person, firm], [person, path(("机构", "乙", 3), ("总部", "京", 1))]))
    assert found["first_type", "机构"].correct == 1
    assert found["type", "总部"].correct == 0


def test_texts_with_several_aspects_have_a_line_of_their_own() -> None:
    """Two places of aspects in pairs; the product as a whole, and aspects without opinions, are none."""
    several = case([SCREEN, PRICE], [SCREEN])
    one = case([SCREEN, WHOLE, pair("屏幕", 0, BAD, "暗", 8)], [])
    found = figures(several, one, case([WHOLE, path(("属性词", "盖", 1)), SCREEN], []))["all", SEVERAL]
    assert (found.texts, found.support, found.correct) == (1, 2, 1)
    assert explicit_aspects(one.gold) == {(0, 2)}
    assert ("all", SEVERAL) not in figures(one)


def test_flat_types_have_no_levels() -> None:
    """Named entities: a first level alone would be everything."""
    entity = path(("地点", "京", 0))
    assert list(figures(case([entity], [entity]))) == [("all", "paths"), ("type", "地点")]


def test_quadruples_compare_categories_of_texts_that_have_them() -> None:
    """One of two pairs has the right category; the text without categories does not count."""
    gold, predicted = {(SCREEN, "外观"), (PRICE, "价格")}, {(SCREEN, "外观"), (PRICE, "物流"), (WHOLE, "整体")}
    judged = replace(
        case([SCREEN, PRICE], [SCREEN, PRICE, WHOLE]),
        gold_categories=frozenset(gold),
        categories=frozenset(predicted),
    )
    silent = replace(case([WHOLE], [WHOLE]), categories=frozenset({(WHOLE, "整体")}))
    quadruples, right = quadruple_figures([judged, silent], Resamples(2))
    assert (quadruples.predicted, quadruples.support, quadruples.correct) == (3, 2, 1)
    assert (right.main, right.support) == (0.5, 2)
    missed = replace(judged, predicted={SCREEN: (0.9, 0.9)}, categories=frozenset({(SCREEN, "外观")}))
    _, right = quadruple_figures([missed], Resamples(1))
    assert (right.main, right.support) == (1.0, 1)  # a pair that was not found has no category to judge


def test_without_predicted_categories_there_are_no_quadruples() -> None:
    """Even where the gold has some; and an aspect without opinion is no quadruple."""
    gold = frozenset({(SCREEN, "外观"), (path(("属性词", "盖", 1)), "包装")})
    plain = replace(case([SCREEN], [SCREEN]), gold_categories=gold)
    assert quadruple_figures([plain], Resamples(1)) == []
    quadruples, _ = quadruple_figures([replace(plain, categories=frozenset({(SCREEN, "外观")}))], Resamples(1))
    assert (quadruples.support, quadruples.main) == (1, 1.0)
