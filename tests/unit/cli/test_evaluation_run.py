"""Annotated examples through a model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from judged_cases import pair, path
from scripted_session import ScriptedSession, found

from consumer.cli.evaluation_run import Run, notes
from consumer.evaluation.paths import Example
from consumer.extraction.task import Task
from consumer.extraction.window import Cells

GOOD, BAD = "好评", "差评"
TASK = Task("data", "extract", {"属性词": {GOOD: None, BAD: None}}, implicit_aspect="#")
FAST = pair("快递", 0, GOOD, "很快", 2)
FOUND = found(("属性词", "快递", 0, 0.9), (GOOD, "很快", 2, 0.8))
CATEGORIES = {"物流": None, "价格": None}


def examples(task: Task = TASK) -> list[Example]:
    return [
        Example("快递很快", task, frozenset({FAST}), frozenset({(FAST, "物流")})),
        Example("还行", task, frozenset(), None),
    ]


def run(script: dict[str, Any], **options: Any) -> tuple[Run, ScriptedSession]:
    session = ScriptedSession(script)
    return Run(cast("Any", session), **options), session


def test_cases_have_what_the_model_found_with_its_scores() -> None:
    """And failures and models are counted; progress ends with all."""
    work, session = run({"快递很快": [FOUND, tuple(replace(fact, score=0.6) for fact in FOUND)]})
    seen: list[int] = []
    first, second = work.cases(examples(), seen.append)
    assert first.predicted == {FAST: (0.9, 0.8)}
    assert (first.gold, first.kind) == (frozenset({FAST}), "extract")
    assert first.gold_categories == frozenset({(FAST, "物流")})
    assert (second.predicted, work.failures) == ({}, {"TextTooLong": 1})
    assert list(work.models) == [("scripted", "7", "serving_default")]
    assert [text for text, _ in session.asked] == ["快递很快", "还行"]
    assert seen == [2]


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ({"属性词": {GOOD: CATEGORIES}}, [(*FOUND, *found(("物流", "很快", 2, 0.7)))]),
        ({"物流": {GOOD: None}, "价格": {GOOD: None}}, [(replace(FOUND[0], type="物流"), FOUND[1])]),
    ],
    ids=["below-polarity", "first-level"],
)
def test_a_schema_that_asks_for_categories_gives_quadruples(schema: Any, paths: Any) -> None:
    """Paths are compared without them."""
    task = replace(TASK, schema=schema)
    work, _ = run({"快递很快": paths, "还行": []})
    first, second = work.cases(examples(task), lambda _: None)
    assert first.predicted == {FAST: (0.9, 0.8)}
    assert first.categories == frozenset({(FAST, "物流")})
    assert second.categories == frozenset()
    assert notes(examples(task), [first, second]) == []


def test_another_task_classifies_the_words_of_pairs() -> None:
    """Each words once, the surest of several labels; texts without gold categories are not asked for."""
    script = {
        "甲": [FOUND],
        "乙": [FOUND, found(("属性词", None, None, 0.9), (GOOD, "便宜", 2, 0.8))],
        "丙": [found(("属性词", "盒", 0, 0.9), (BAD, "破", 2, 0.8))],
        "快递很快": [found(("价格", None, None, 0.6)), found(("物流", None, None, 0.9))],
        "便宜": [],
    }
    kept = frozenset({(FAST, "物流")})
    work, session = run(script)
    cases = work.cases(
        [
            Example("甲", TASK, frozenset(), kept),
            Example("乙", TASK, frozenset(), kept),
            Example("丙", TASK, frozenset()),
        ],
        lambda _: None,
    )
    assert all(case.categories is None for case in cases)
    session.asked.clear()
    classifier = Task("pairs", "multi_classify", CATEGORIES)
    first, second, third = work.categorised(cases, classifier)
    assert session.asked == [("快递很快", classifier), ("便宜", classifier)]
    assert [case.categories for case in (first, second, third)] == [kept, kept, None]


def test_a_temperature_divides_all_logits() -> None:
    """As it would if it were folded into the weights; all else is the extraction's own."""
    taken: list[Any] = []
    inner = SimpleNamespace(windows=("w",), advance=taken.extend)
    work = Run(cast("Any", SimpleNamespace(engine=SimpleNamespace(start=lambda *_: inner))), temperature=4.0)
    tempered = cast("Any", work._start("t", TASK))
    assert tempered.windows == ("w",)
    places = np.zeros(2, np.int32)
    tempered.advance([Cells(places, places, np.array([8.0, -2.0], np.float32))])
    assert taken[0].logits.tolist() == [2.0, -0.5]
    assert taken[0].logits.dtype == np.float32
    plain = Run(work.session)._start("t", TASK)
    assert cast("Any", plain) is inner


def test_what_a_reader_should_know_is_noted() -> None:
    """Gold that no prediction can equal, and categories that nothing predicts."""
    lone = path(("属性词", "盒", 0))
    first, second = examples()
    given = [replace(first, gold=frozenset({FAST, lone})), replace(second, gold=frozenset({FAST}))]
    work, _ = run({"快递很快": [FOUND], "还行": []})
    cases = work.cases(given, lambda _: None)
    beyond, without = notes(given, cases)
    assert beyond.startswith("1 gold paths are none that the schema can report")
    assert without.startswith("the gold has categories (1) and the schema predicts none")
    partly = notes(given, [replace(case, categories=frozenset()) for case in cases])
    assert partly[1].startswith("1 texts have no category for each of their paths")
    legal = replace(TASK, legal_paths=frozenset({("属性词",)}))
    assert notes([Example("盒", legal, frozenset({lone}))], []) == []
