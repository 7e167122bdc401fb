"""What the demo claims about its model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from consumer.evaluation.paths import Named
from consumer.local.demo_events import DemoEvent, gold_facts
from consumer.local.demo_outcome import Seen
from consumer.local.demo_quality import fact_figure, fact_mistakes, label_score, worst_mistakes

if TYPE_CHECKING:
    from consumer.evaluation.paths import NamedPath

ASPECT, GOOD, BAD = "属性词", "正向情感(情感词)", "负向情感(情感词)"
TEXT = "屏幕很清晰，充电太慢了，挺满意"
GOLD_LINE = {
    "id": "one",
    "text": "#" + TEXT,
    "info_list": [
        [{"type": ASPECT, "span": "屏幕", "offset": [1, 3]}, {"type": GOOD, "span": "很清晰", "offset": [3, 6]}],
        [{"type": ASPECT, "span": "充电", "offset": [7, 9]}, {"type": BAD, "span": "太慢了", "offset": [9, 12]}],
        [{"type": ASPECT, "span": "#", "offset": [0, 1]}, {"type": GOOD, "span": "挺满意", "offset": [13, 16]}],
    ],
}


def fact(aspect: tuple[int, int] | None, polarity: str, start: int, end: int) -> NamedPath:
    """An opinion on an aspect, or on the product as a whole."""
    first = Named(ASPECT, None, None, None) if aspect is None else Named(ASPECT, TEXT[slice(*aspect)], *aspect)
    return first, Named(polarity, TEXT[start:end], start, end)


SCREEN, CHARGING, WHOLE = fact((0, 2), GOOD, 2, 5), fact((6, 8), BAD, 8, 11), fact(None, GOOD, 12, 15)


def event(key: str = "one", category: str = "平板", sentiment: str = "正向情感") -> DemoEvent:
    value = json.dumps({"text": TEXT}).encode()
    labels = {"category": category, "sentiment": sentiment}
    return DemoEvent(key, value, labels=labels, facts=frozenset({SCREEN, CHARGING, WHOLE}))


def saw(key: str, *found: NamedPath, category: str = "平板", sentiment: str = "正向情感") -> Seen:
    seen = Seen()
    seen.results[key, "product_features"] = {"extractions": [[part._asdict() for part in path] for path in found]}
    for task, label in (("category", category), ("sentiment", sentiment)):
        seen.results[key, task] = {"extractions": [[{"type": label}]]}
    return seen


def test_gold_is_in_places_of_the_review_itself() -> None:
    """Its text begins with a sign for the product as a whole, which has no place."""
    assert gold_facts(GOLD_LINE) == {SCREEN, CHARGING, WHOLE}


def test_facts_are_scored_strictly_over_all_reviews_with_gold() -> None:
    """Precision and recall of all facts together; a fact of which one place differs is wrong; no gold, no score."""
    shorter: NamedPath = fact((6, 8), BAD, 8, 10)
    seen = saw("one", SCREEN, shorter)
    seen.results |= saw("unseen", SCREEN, SCREEN).results | saw("empty", SCREEN).results
    samples = [event(), replace(event("unseen"), facts=None), replace(event("empty"), facts=frozenset())]
    score = fact_figure(samples, seen)
    assert (score.predicted, score.support, score.correct) == (3, 3, 1)
    assert score.values == pytest.approx({"f1": 1 / 3, "precision": 1 / 3, "recall": 1 / 3})


def test_nothing_found_and_nothing_annotated_is_zero() -> None:
    """And no division by zero."""
    score = fact_figure([], Seen())
    assert set(score.values.values()) == {0}


@pytest.mark.parametrize(
    ("found", "mistakes"),
    [
        ((SCREEN, CHARGING, WHOLE), {}),
        ((SCREEN, CHARGING), {"missed": 1}),
        ((SCREEN, CHARGING, fact((6, 8), GOOD, 12, 15)), {"aspect": 1}),
        ((SCREEN, CHARGING, fact(None, BAD, 12, 15)), {"polarity": 1}),
        ((SCREEN, CHARGING, fact(None, GOOD, 13, 15)), {"words": 1}),
        ((SCREEN, CHARGING, WHOLE, fact((0, 2), GOOD, 5, 6)), {"invented": 1}),
    ],
    ids=["right", "missed", "aspect", "polarity", "words", "invented"],
)
def test_a_mistake_is_of_one_kind(found: tuple[NamedPath, ...], mistakes: dict[str, int]) -> None:
    """An opinion with a wrong aspect is not missed as well."""
    assert fact_mistakes([event()], saw("one", *found)) == mistakes


def test_an_opinion_on_two_aspects_is_missed_once() -> None:
    """It is one opinion."""
    both = replace(event(), facts=frozenset({SCREEN, fact((6, 8), GOOD, 2, 5)}))
    assert fact_mistakes([both], saw("one")) == {"missed": 1}


def test_the_sentence_is_of_this_run() -> None:
    """The most frequent mistakes, with their numbers; another run has another sentence."""
    wrong: NamedPath = fact((6, 8), GOOD, 12, 15)
    seen = saw("one", SCREEN, CHARGING, wrong, category="手机")
    said = worst_mistakes([event()], seen)
    assert said == (
        "What the model gets wrong most: 1 of the 3 facts found have a right opinion on a wrong aspect; "
        "平板 is taken for 手机 (1 of 1)."
    )
    right = saw("one", SCREEN, CHARGING, WHOLE)
    assert worst_mistakes([event()], right) == "The model made no mistake that these samples show."


def test_the_sentence_names_what_is_most_frequent_first() -> None:
    """Two of three kinds of mistakes in facts, and the confusion that came twice."""
    wrong: tuple[NamedPath, ...] = (SCREEN, fact((6, 8), GOOD, 2, 5), fact(None, BAD, 12, 15))
    seen = saw("one", *wrong, category="手机")
    for key, label in (("two", "酒店"), ("three", "酒店")):
        seen.results |= saw(key, category=label).results
    said = worst_mistakes([event(key) for key in ("one", "two", "three")], seen)
    assert said == (
        "What the model gets wrong most: 7 annotated opinions are missed altogether; 1 of the 3 facts found have a "
        "right opinion on a wrong aspect; 平板 is taken for 酒店 (2 of 3)."
    )


def test_mixed_reviews_are_not_judged_and_a_missing_label_is_wrong() -> None:
    """Of three reviews one has no single right label."""
    seen = saw("one", sentiment="负向情感")
    score = label_score([event(), event("two"), event("three", sentiment="mixed")], seen, "sentiment")
    assert (score.right, score.judged) == (0, 2)
    assert score.wrong == {("正向情感", "负向情感"): 1, ("正向情感", "nothing"): 1}
