"""What a changed configuration does to results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.outputs import Routes, result_id
from consumer.config.route import RouteConfig
from consumer.config.task_changes import changes, differences
from consumer.config.tree import Config
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.extraction.task import SchemaTree

TASK = Task("brand", "extract", {"品牌": {"型号": None}, "产地": None})
FEATURES = Task("features", "extract", {"属性": None})


def config(*routes: Mapping[str, Any]) -> Config:
    return Config(routes=tuple(RouteConfig(**route) for route in routes))


def route(*tasks: str, output: str = "facts", topic: str = "raw", inline: bool = False) -> Config:
    return config({"input": topic, "tasks": tasks, "output": output, "inline_schemas": inline})


def known(*tasks: Task) -> dict[str, Task]:
    return {task.name: task for task in tasks}


def whats(old: Config, old_tasks: Mapping[str, Task], new: Config, new_tasks: Mapping[str, Task]) -> dict[str, str]:
    return {f"{change.input}/{change.task}": change.what for change in changes(old, old_tasks, new, new_tasks)}


def test_nothing_changed() -> None:
    """An inline schema is its event's matter."""
    same = route("brand", inline=True), known(TASK)
    assert whats(*same, *same) == {"raw/brand": "unchanged", "raw/inline": "unchanged"}


def test_a_changed_definition_re_identifies_the_results_of_its_routes_alone() -> None:
    """The other task of the route keeps its ids."""
    used = route("brand", "features")
    new = replace(TASK, threshold=0.5)
    found = changes(used, known(TASK, FEATURES), used, known(new, FEATURES))
    assert [change.what for change in found] == ["re-identified", "unchanged"]
    assert f"fingerprint {TASK.fingerprint} becomes {new.fingerprint}: threshold None becomes 0.5" in found[0].detail
    assert found[0].detail.endswith("all results on facts get other ids")


def test_tasks_and_inputs_come_and_go() -> None:
    """What is gone stays in its topic; who renames a task renames its results."""
    both = known(TASK, FEATURES)
    assert whats(route("brand"), both, route("brand", "features"), both) == {
        "raw/brand": "unchanged",
        "raw/features": "new",
    }
    assert whats(route("brand", "features"), both, route("brand"), both) == {
        "raw/brand": "unchanged",
        "raw/features": "gone",
    }
    assert whats(route("brand"), both, route("brand", topic="other"), both) == {
        "other/brand": "new",
        "raw/brand": "gone",
    }
    renamed = replace(TASK, name="brands")
    assert whats(route("brand"), known(TASK), route("brands"), known(renamed)) == {"raw/brands": "renamed"}


def test_a_second_version_beside_the_first_is_new() -> None:
    """Also where its definition is the same: the first is still there."""
    twin = replace(TASK, name="brand_v2")
    assert whats(route("brand"), known(TASK), route("brand", "brand_v2"), known(TASK, twin)) == {
        "raw/brand": "unchanged",
        "raw/brand_v2": "new",
    }


def test_another_output_topic() -> None:
    """With the definition changed, too, both are said."""
    moved = changes(route("brand"), known(TASK), route("brand", output="facts.{task}"), known(TASK))
    assert [change.what for change in moved] == ["moved"]
    assert "results go to facts.brand, not to facts, where those of before stay" in moved[0].detail
    new = known(replace(TASK, kind="classify"))
    (both,) = changes(route("brand"), known(TASK), route("brand", output="facts.{task}"), new)
    assert both.what == "re-identified"
    assert "results go to facts.brand" in both.detail
    assert whats(route(inline=True), {}, route(inline=True, output="other"), {}) == {"raw/inline": "moved"}


BEFORE: SchemaTree = {"品牌": {"型号": None, "系列": None}, "产地": None}


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"品牌": {"型号": None, "系列": None}}, ["type 产地 removed"]),
        ({**BEFORE, "价格": {"折扣": None}}, ["type 价格 added"]),
        ({"品牌": BEFORE["品牌"], "出产地": None}, ["type 产地 looks renamed to 出产地"]),
        ({"商标": BEFORE["品牌"], "产地": None}, ["type 品牌 looks renamed to 商标"]),
        ({"品牌": {"型号": None, "产地": None}, "系列": None},
         ["type 产地 moved to 品牌 > 产地", "type 品牌 > 系列 moved to 系列"]),
        ({"品牌": {"型号": None, "系列": None, "产地": None}}, ["type 产地 moved to 品牌 > 产地"]),
        ({"a": None, "b": None, "产地": None}, ["type 品牌 removed", "type a added", "type b added"]),
        ({"全部": BEFORE}, ["type 产地 moved to 全部 > 产地", "type 品牌 moved to 全部 > 品牌", "type 全部 added"]),
        ({"品牌": None, "产地": None}, ["type 品牌 > 型号 removed", "type 品牌 > 系列 removed"]),
    ],
)  # fmt: skip
def test_differences_of_schemas_are_said_by_type(after: SchemaTree, said: list[str]) -> None:
    """What is below a named type is not named again."""
    assert sorted(differences(Task("t", "extract", BEFORE), Task("t", "extract", after))) == sorted(said)


def test_of_many_differences_some_are_named() -> None:
    """A line can be read."""
    wide = Task("t", "extract", {f"type {number}": None for number in range(40)})
    said = differences(TASK, wide)
    assert len(said) == 11
    assert said[-1] == "and 32 more"


trees = st.recursive(
    st.none(), lambda below: st.dictionaries(st.sampled_from("abcd"), below, min_size=1, max_size=3), max_leaves=8
).map(lambda tree: tree or {"a": None})
kinds = st.sampled_from(["extract", "classify"])
marked = st.builds(Task, st.sampled_from(["one", "two"]), kinds, trees, threshold=st.sampled_from([None, 0.5]))
tasks = st.lists(marked, min_size=1, max_size=2, unique_by=lambda task: task.name).map(lambda found: known(*found))
outputs = st.sampled_from(["facts", "facts.{task}"])


@given(tasks, outputs, tasks, outputs)
def test_it_says_unchanged_when_ids_and_topics_are_the_same_and_only_then(
    old_tasks: dict[str, Task], old_output: str, new_tasks: dict[str, Task], new_output: str
) -> None:
    """Against what a worker really does: the id that it makes and the topic that it chooses."""
    old, new = route(*old_tasks, output=old_output), route(*new_tasks, output=new_output)

    def results(configured: Config, loaded: Mapping[str, Task]) -> dict[str, tuple[str, str]]:
        routes = Routes(configured.routes, loaded)
        return {name: (result_id("e", task), routes.output_topic("raw", name)) for name, task in loaded.items()}

    before, after = results(old, old_tasks), results(new, new_tasks)
    said = {change.task: change.what for change in changes(old, old_tasks, new, new_tasks)}
    for name in after:
        assert (said[name] == "unchanged") == (before.get(name) == after[name])
        moved = name in before and before[name][0] == after[name][0] and before[name][1] != after[name][1]
        assert (said[name] == "moved") == moved
        assert (said[name] == "re-identified") == (name in before and before[name][0] != after[name][0])
    for name in before.keys() - after.keys():
        assert said.get(name, "renamed") in ("gone", "renamed")


@given(trees, trees)
def test_different_schemas_have_differences_and_equal_ones_none(old: SchemaTree, new: SchemaTree) -> None:
    """Nothing is re-identified without a word why."""
    before, after = Task("t", "extract", old), Task("t", "extract", new)
    assert bool(differences(before, after)) == (before.fingerprint != after.fingerprint)
