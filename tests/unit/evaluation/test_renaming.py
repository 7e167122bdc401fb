"""The same gold under other names."""

from __future__ import annotations

import pytest
from judged_cases import pair

from consumer.evaluation.paths import Example
from consumer.evaluation.renaming import renamed, renamed_task
from consumer.extraction.task import Task

PATH = pair("盖", 0, "好评", "紧", 1)


def example() -> Example:
    task = Task("data", "extract", {"属性词": {"好评": None, "差评": None}}, implicit_aspect="#", threshold=0.6)
    return Example("盖紧", task, frozenset({PATH}), frozenset({(PATH, "包装")}))


def test_schema_gold_and_categories_get_the_names() -> None:
    """All else of the task stays; examples of one task still share one."""
    one = example()
    first, second = renamed([one, one], {"属性词": "产品方面", "好评": "赞", "包装": "外包装"})
    assert first.task.schema == {"产品方面": {"赞": None, "差评": None}}
    assert (first.task.implicit_aspect, first.task.threshold) == ("#", 0.6)
    (path,) = first.gold
    assert [fact.type for fact in path] == ["产品方面", "赞"]
    assert [(fact.span, fact.start) for fact in path] == [("盖", 0), ("紧", 1)]
    assert first.categories == frozenset({(path, "外包装")})
    assert first.task is second.task


def test_names_may_change_places() -> None:
    """All at once, not one after the other."""
    (found,) = renamed([example()], {"好评": "差评", "差评": "好评"})
    assert found.task.schema == {"属性词": {"差评": None, "好评": None}}
    assert {path[1].type for path in found.gold} == {"差评"}


def test_a_task_alone_takes_the_names_that_it_has() -> None:
    """Those of another are no mistake there."""
    assert renamed_task(example().task, {"差评": "糟", "物流": "x"}).schema == {"属性词": {"好评": None, "糟": None}}


def test_legal_paths_move_along() -> None:
    """Else nothing would be legal."""
    task = Task("data", "extract", {"甲": {"乙": None}}, legal_paths=frozenset({("甲",), ("甲", "乙")}))
    (found,) = renamed([Example("t", task, frozenset())], {"甲": "丙"})
    assert found.task.legal_paths == frozenset({("丙",), ("丙", "乙")})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"属性": "x"}, "no schema has a type '属性'; the types are 包装, 好评, 属性词, 差评"),
        ({"好评": "差评"}, "two types under one parent would be called '差评'"),
    ],
    ids=["unknown", "equal"],
)
def test_names_that_cannot_be_are_refused(names: dict[str, str], words: str) -> None:
    """A slip of the pen would score a model under names that were never asked."""
    with pytest.raises(ValueError, match=words):
        renamed([example()], names)


def test_of_many_types_some_are_listed() -> None:
    """Data with a question a line have thousands."""
    task = Task("data", "extract", {f"{number:03d}": None for number in range(60)})
    with pytest.raises(ValueError, match=r"the types are 000, 001, .*, 049 …$"):
        renamed([Example("t", task, frozenset())], {"x": "y"})
