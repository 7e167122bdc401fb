"""Task files: those that ship, and what is said about bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from consumer.config.problems import ConfigError, Problem
from consumer.config.shipped import shipped
from consumer.config.task_files import load_tasks, read_task_file
from consumer.extraction.task import ExtractionLimits, SchemaTree, parse_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


GOOD = "name: brand\nkind: extract\nschema: {品牌: }\n"
SHIPPED = sorted(shipped("schemas/tasks").glob("*.y*ml"))


def legal_paths(tree: SchemaTree, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, children in tree.items():
        if children:
            yield from legal_paths(children, (*above, name))
        else:
            yield (*above, name)


def refused(path: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        read_task_file(path)
    return list(caught.value.problems)


def test_the_promised_tasks_ship() -> None:
    """Every task that the product promises is there."""
    assert set(load_tasks()) == {
        "product_features",
        "sentiment",
        "category",
        "review_topics",
        "purchase_intention",
        "ner",
        "relation",
        "event",
        "matching",
        "nli",
        "reading_comprehension",
        "hierarchical_topic",
    }


def test_product_features_has_an_implicit_aspect() -> None:
    """Opinions on the product as a whole need a place to stand."""
    task = load_tasks()["product_features"]
    assert task.implicit_aspect == "#"
    assert task.schema == {"属性词": {"正向情感(情感词)": None, "负向情感(情感词)": None, "中性情感(情感词)": None}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_task_is_described_by_fitting_examples(path: Path) -> None:
    """Its file is named like it, and each example's facts lie on legal paths and in its text."""
    task = read_task_file(path)
    assert path.stem == task.name
    assert task.description
    examples = yaml.safe_load(path.read_text("utf-8"))["examples"]
    assert examples
    paths = set(legal_paths(task.schema))
    for example in examples:
        assert example["extractions"]
        for facts in example["extractions"]:
            assert tuple(fact["type"] for fact in facts) in paths
            spans = [fact.get("span") for fact in facts]
            if task.kind == "extract":
                implicit = task.implicit_aspect is not None and spans[0] is None
                assert all(span and span in example["text"] for span in (spans[1:] if implicit else spans))
            else:
                assert spans == [None] * len(spans)
        if task.kind == "classify":
            assert len(example["extractions"]) == 1


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_schema_is_one_that_the_engine_takes(path: Path) -> None:
    """What a task file may say is what an event's schema may say."""
    task = read_task_file(path)
    assert parse_schema(task.schema, ExtractionLimits()) == task.schema


def test_own_tasks_stand_beside_the_shipped(tmp_path: Path) -> None:
    """A folder adds its files, in both spellings of the extension; other files are left alone."""
    (tmp_path / "a.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "b.yml").write_text(GOOD.replace("brand", "size") + "threshold: 1\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("no task", encoding="utf-8")
    tasks = load_tasks([tmp_path])
    assert tasks["brand"].schema == {"品牌": None}
    assert tasks["brand"].threshold is None
    assert tasks["size"].threshold == 1.0
    assert "sentiment" in tasks


def test_a_name_is_used_once(tmp_path: Path) -> None:
    """A task of one's own does not silently replace another."""
    (tmp_path / "mine.yaml").write_text(GOOD.replace("brand", "sentiment"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml.*sentiment is already the task of .*sentiment\.yaml"):
        load_tasks([tmp_path])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A mistyped folder does not mean no tasks."""
    with pytest.raises(ConfigError, match="nowhere"):
        load_tasks([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("- a\n", "task", "a list"),
        ("", "task", "empty"),
        ("kind: extract\nschema: {a: }\n", "name", "add it"),
        (GOOD.replace("brand", "牌子"), "name", "letters, digits"),
        (GOOD.replace("brand", "a/b"), "name", "letters, digits"),
        (GOOD.replace("brand", "inline"), "name", "choose another"),
        (GOOD.replace("extract", "extrct"), "kind", "did you mean extract?"),
        ("name: a\nschema: {a: }\n", "kind", "is not set"),
        ("name: a\nkind: extract\n", "schema", "mapping of type names"),
        ("name: a\nkind: extract\nschema: {}\n", "schema", "mapping of type names"),
        ("name: a\nkind: extract\nschema: [a, b]\n", "schema", "a list"),
        ("name: a\nkind: extract\nschema: {a: text}\n", "schema.a", "text"),
        ("name: a\nkind: extract\nschema: {' a': }\n", "schema. a", "outer spaces"),
        ("name: a\nkind: extract\nschema: {no: }\n", "schema", "in quotes"),
        ("name: a\nkind: extract\nschema:\n  a:\n  a:\n", "schema.a", "given twice"),
        (GOOD + "threshold: !!int ''\n", "FILE", "impossible"),
        (GOOD + "threshold: !!bool perhaps\n", "FILE", "impossible"),
        (GOOD + "threshold: !!timestamp soon\n", "FILE", "impossible"),
        (GOOD + "? !!str [a, b]\n: c\n", "task.yaml", "in quotes"),
        (GOOD + "treshold: 1\n", "treshold", "did you mean threshold?"),
        (GOOD + "threshold: 2\n", "threshold", "from 0 to 1"),
        (GOOD + "threshold: yes\n", "threshold", "true/false"),
        (GOOD + "implicit_aspect: 5\n", "implicit_aspect", "in quotes"),
        (GOOD.replace("extract", "classify") + "implicit_aspect: '#'\n", "implicit_aspect", "no meaning"),
        (GOOD + "description: [a]\n", "description", "must be text"),
        (GOOD + "examples: {text: a}\n", "examples", "must be a list"),
        (GOOD + "examples: [{text: a}]\n", "examples.0", "not an example"),
        (GOOD + "examples: [{text: a, extractions: [b]}]\n", "examples.0.extractions", "list of paths"),
    ],
)
def test_a_bad_task_file_is_explained(tmp_path: Path, text: str, key: str, words: str) -> None:
    """Each problem has the key, what is wrong and the fix."""
    path = tmp_path / "task.yaml"
    path.write_text(text, encoding="utf-8")
    found = [problem for problem in refused(path) if problem.key == key.replace("FILE", str(path))]
    assert found
    assert any(words in str(problem) for problem in found)


def test_problems_have_the_files_line(tmp_path: Path) -> None:
    """The way to the mistake is short."""
    path = tmp_path / "task.yaml"
    path.write_text(GOOD + "threshold: 2\nkinds: x\n", encoding="utf-8")
    assert sorted(problem.origin or "" for problem in refused(path)) == [f"{path}:4", f"{path}:5"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "has no task file (.yaml or .yml; subfolders are not read)"),
        (
            ["brand.json", "b.YAML"],
            "has no task file (.yaml or .yml; subfolders are not read), only b.YAML, brand.json",
        ),
        (["sub/brand.yaml", ".hidden"], "subfolders are not read), only sub"),
        ([f"{number}.txt" for number in range(7)], "only 0.txt, 1.txt, 2.txt, 3.txt, 4.txt …"),
        (["brand.yaml.txt"], "only brand.yaml.txt"),
    ],
)
def test_a_folder_without_task_files_is_named(tmp_path: Path, files: list[str], said: str) -> None:
    """With what is in it: it was named for a reason."""
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(GOOD, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tasks([tmp_path])
    (problem,) = caught.value.problems
    assert problem.what.startswith(f"{tmp_path} ")
    assert said in problem.what


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """Also where it is the task file itself."""
    (tmp_path / "brand.yml").write_text(GOOD, encoding="utf-8")
    assert "brand" in load_tasks([tmp_path])
    for folder, said in (
        (tmp_path / "no", "cannot be read: No such file"),
        (tmp_path / "brand.yml", "is a file, not a"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_tasks([folder])
        assert f"{folder} {said}" in str(caught.value)


def test_a_task_file_may_hold_what_its_anchors_name(tmp_path: Path) -> None:
    """As a configuration may."""
    path = tmp_path / "own.yaml"
    path.write_text(
        "x-parts: &parts {优点: , 缺点: }\nname: own\nkind: extract\nschema: {属性: {<<: *parts}}\n", "utf-8"
    )
    assert read_task_file(path).schema == {"属性": {"优点": None, "缺点": None}}


def test_tasks_of_replacing_folders_take_the_place_of_others(tmp_path: Path) -> None:
    """Whoever compares two schemas of one task has both under its name; two of them there are still refused."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.yaml").write_text("name: sentiment\nkind: classify\nschema: {好: }\n", "utf-8")
    found = load_tasks([], [tmp_path / "a"])
    assert found.keys() == load_tasks().keys()
    assert found["sentiment"].schema == {"好": None}
    with pytest.raises(ConfigError, match="sentiment is already the task of"):
        load_tasks([], [tmp_path / "a", tmp_path / "b"])


TREE = "name: brand\nkind: extract\nschema:\n  品牌:\n    型号:\n  产地:\n"
SAME = {
    "comments and empty lines": "# ours\n\n" + TREE.replace("产地:", "产地:  # where from"),
    "another style of YAML": '{"name": "brand", "kind": "extract", "schema": {"品牌": {"型号": null}, "产地": {}}}',
    "keys in another order": "schema:\n  产地:\n  品牌: {型号: }\nkind: extract\nname: brand\n",
    "a description": TREE + "description: brands\n",
    "examples": TREE + "examples: [{text: 一二, extractions: []}]\n",
    "a key without a value": TREE + "threshold:\nimplicit_aspect:\n",
    "another name": TREE.replace("brand", "brands"),
}
OTHER = {
    "a type renamed": TREE.replace("产地", "出产地"),
    "a type added": TREE + "  价格:\n",
    "a type removed": TREE.replace("  产地:\n", ""),
    "a type below another": TREE.replace("    型号:\n  产地:\n", "    型号:\n    产地:\n"),
    "another kind": TREE.replace("extract", "multi_classify"),
    "a threshold": TREE + "threshold: 0.5\n",
    "an implicit aspect": TREE + 'implicit_aspect: "#"\n',
    "an implicit aspect of another sign": TREE + 'implicit_aspect: "*"\n',
}


def fingerprint(text: str, path: Path) -> str:
    path.write_text(text, encoding="utf-8")
    return read_task_file(path).fingerprint


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_an_edit_that_asks_nothing_else_keeps_the_fingerprint(text: str, tmp_path: Path) -> None:
    """docs/tasks.md lists them; the name is a part of result ids beside the fingerprint."""
    assert fingerprint(text, tmp_path / "new.yaml") == fingerprint(TREE, tmp_path / "old.yaml")


def test_an_edit_that_asks_something_else_changes_the_fingerprint(tmp_path: Path) -> None:
    """Each to another one."""
    found = {fingerprint(text, tmp_path / "task.yaml") for text in (TREE, *OTHER.values())}
    assert len(found) == 1 + len(OTHER)
    assert fingerprint(TREE + "threshold: 0.50\n", tmp_path / "a.yaml") in found
