"""What the model is asked, and what it should say."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from annotated_lines import ASPECTS, fact, written

from consumer.cli.annotated_data import DataError, Labels, read_examples
from consumer.config.task_files import load_tasks
from consumer.evaluation.paths import Named
from consumer.local.review_files import InputForm

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.evaluation.paths import Example

JSON = InputForm()
LABELS = Labels("label", None, {})


def read(tmp_path: Path, *rows: Any, limit: int | None = None, task: str | None = None) -> list[Example]:
    chosen = load_tasks()[task] if task else None
    return read_examples(str(written(tmp_path, *rows)), JSON, limit, chosen, LABELS)


def test_the_implicit_aspect_is_taken_off_and_offsets_move_along(tmp_path: Path) -> None:
    """Texts and offsets become what a caller sends and gets; the whole product has no span."""
    row = {
        "text": "#瓶盖紧，难开",
        "schema": ASPECTS,
        "info_list": [
            [fact("属性词", "瓶盖", 1), fact("负向情感(情感词)", "紧", 3)],
            [fact("属性词", "#", 0), fact("负向情感(情感词)", "难开", 5)],
        ],
    }
    (example,) = read(tmp_path, row)
    assert (example.text, example.task.kind, example.task.implicit_aspect) == ("瓶盖紧，难开", "extract", "#")
    assert example.gold == {
        (Named("属性词", "瓶盖", 0, 2), Named("负向情感(情感词)", "紧", 2, 3)),
        (Named("属性词", None, None, None), Named("负向情感(情感词)", "难开", 4, 6)),
    }
    for path in example.gold:
        for one in path:
            assert one.span is None or example.text[one.start : one.end] == one.span


def test_a_text_that_merely_begins_with_a_hash_keeps_it(tmp_path: Path) -> None:
    """Without an implicit aspect in the data, # is a character of the text."""
    row = {"text": "#桂林 开会", "schema": {"地点": None}, "info_list": [[fact("地点", "桂林", 1)]]}
    (example,) = read(tmp_path, row)
    assert (example.text, example.task.implicit_aspect) == ("#桂林 开会", None)
    assert example.gold == {(Named("地点", "桂林", 1, 3),)}


@pytest.mark.parametrize(("marker", "kind"), [("[CLASSIFY]", "classify"), ("[MULTICLASSIFY]", "multi_classify")])
def test_classification_markers_become_the_kind(tmp_path: Path, marker: str, kind: str) -> None:
    """The engine puts the marker itself; classes have no span."""
    row = {"text": marker + "到货慢", "schema": {"物流": None}, "info_list": [[fact("物流", marker, 0)]]}
    (example,) = read(tmp_path, row)
    assert (example.text, example.task.kind) == ("到货慢", kind)
    assert example.gold == {(Named("物流", None, None, None),)}


def test_categories_belong_to_the_paths_in_their_order(tmp_path: Path) -> None:
    """Where there are not as many as paths nobody knows whose they are; a path may have none."""
    paths = [[fact("属性词", "盖", 0), fact("正向情感(情感词)", "紧", 1)], [fact("属性词", "瓶", 3)]]
    row = {"text": "盖紧，瓶", "schema": ASPECTS, "info_list": paths}
    names = [["包装", "质量"], ["包装", None], ["包装"], None]
    both, one, uneven, none = read(tmp_path, *(row | {"pair_categories": each} for each in names))
    assert {path[0].span: category for path, category in both.categories or ()} == {"盖": "包装", "瓶": "质量"}
    assert {path[0].span: category for path, category in one.categories or ()} == {"盖": "包装"}
    assert (uneven.categories, none.categories) == (None, None)
    assert uneven.gold == both.gold
    with pytest.raises(DataError, match=r"line 1 .*pair_categories is not a list of names, one for each path"):
        read(tmp_path, row | {"pair_categories": "包装"})


def test_equal_schemas_are_one_task_and_legal_paths_belong_to_it(tmp_path: Path) -> None:
    """The engine's cache is by task."""
    row = {"text": "包装好", "schema": ASPECTS, "info_list": []}
    one, two, other = read(tmp_path, row, row, row | {"legal_output_type_list": [["属性词"]]})
    assert one.task is two.task
    assert other.task.legal_paths == frozenset({("属性词",)})


def test_a_task_replaces_schema_and_kind(tmp_path: Path) -> None:
    """Data of other names can be asked with a task of ours."""
    (example,) = read(tmp_path, {"text": "包装好", "info_list": []}, task="product_features")
    assert example.task.name == "product_features"


def test_labels_become_classes(tmp_path: Path) -> None:
    """Numbers are mapped by name; without a task, the labels that occur are the schema."""
    path = tmp_path / "shop.jsonl.gz"
    rows = [{"review": "好用", "stars": 1}, {"review": "坏了", "stars": 0}, {"review": "退了", "stars": 0}]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    labels = Labels("stars", None, {"1": "正向情感", "0": "负向情感"})
    good, bad = read_examples(str(path), InputForm(text_field="review"), 2, None, labels)
    assert (good.text, good.task.kind, list(good.task.schema)) == ("好用", "classify", ["正向情感", "负向情感"])
    assert good.gold == {(Named("正向情感", None, None, None),)}
    assert bad.gold == {(Named("负向情感", None, None, None),)}


def test_dots_lead_to_a_label_within_an_object(tmp_path: Path) -> None:
    """As the sample reviews have theirs, and outer spaces are none of it; a field of that very name comes first."""
    labels = LABELS._replace(field="attributes.category")
    data = written(
        tmp_path, {"text": "a", "attributes": {"category": "书籍 "}}, {"text": "b", "attributes.category": "书籍"}
    )
    one, two = read_examples(str(data), JSON, None, None, labels)
    assert one.gold == two.gold == {(Named("书籍", None, None, None),)}
    for row in ({"text": "a", "attributes": {}}, {"text": "a", "attributes": "书籍"}):
        with pytest.raises(DataError, match=r"line 1 has neither info_list nor attributes\.category; name"):
            read_examples(str(written(tmp_path, row)), JSON, None, None, labels)


def test_half_of_a_surrogate_pair_becomes_what_the_engine_makes_of_it(tmp_path: Path) -> None:
    """Else a span with it could never be right, and neither terminal nor report could show it."""
    path = tmp_path / "data.jsonl"
    row = {"text": "盖\ud83d", "schema": {"部\ud83d": None}, "info_list": [[fact("部\ud83d", "盖\ud83d", 0)]]}
    path.write_text(json.dumps(row), "utf-8")
    (example,) = read_examples(str(path), JSON, None, None, LABELS)
    assert (example.text, list(example.task.schema)) == ("盖\ufffd", ["部\ufffd"])
    assert example.gold == {(Named("部\ufffd", "盖\ufffd", 0, 2),)}


def test_tables_and_plain_text_are_data_too(tmp_path: Path) -> None:
    """A column of labels, or one label for a file of text."""
    path = tmp_path / "shop.csv.gz"
    path.write_bytes(gzip.compress('\ufefflabel,review\n1,好用\n0,"坏了,\n退"\n'.encode()))
    labels = Labels("label", None, {"1": "正向情感", "0": "负向情感"})
    good, bad = read_examples(str(path), InputForm(text_field="review"), None, None, labels)
    assert [example.text for example in (good, bad)] == ["好用", "坏了,\n退"]
    assert bad.gold == {(Named("负向情感", None, None, None),)}
    path = tmp_path / "pos.txt"
    path.write_text("好用\n很好\n", "utf-8")
    texts = read_examples(str(path), JSON, None, load_tasks()["sentiment"], labels._replace(constant="1"))
    assert [(example.text, example.gold) for example in texts] == [("好用", good.gold), ("很好", good.gold)]
    with pytest.raises(DataError, match="plain text has no labels; say --label"):
        read_examples(str(path), JSON, None, None, labels)


def test_the_limit_counts_lines_that_hold_something(tmp_path: Path) -> None:
    """Blank lines are no examples."""
    path = tmp_path / "data.jsonl"
    path.write_text('\n{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\nnot read', "utf-8")
    assert [example.text for example in read_examples(str(path), JSON, 2, None, LABELS)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no line"),
        ("{}\n", "line 1 has neither info_list nor text; name its field with --text-field"),
        ('{"text": "a"}', "line 1 has neither info_list nor label; name its field with --label-field"),
        ('{"text": 5, "label": "x"}', "line 1: field text is not a string"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": null}', "line 2: its label, label, is empty; leave out"),
        ('{"text": "a", "label": " "}', "line 1: its label, label, is empty"),
        ('{"text": "a", "label": "x"}\n[]', "line 2 is not a JSON object"),
        ('{"text": "a", "label": "x"}\n{', "line 2 is not JSON"),
        ('{"text": "a", "info_list": [], "schema": {}}\n{"text": "b"}', "line 2 has no info_list, others have"),
        ('{"text": "a", "info_list": []}', "line 1 is not in RexUniNLU's form .no 'schema'"),
        ('{"text": "a", "info_list": [["x"]], "schema": {}}', "line 1 is not in RexUniNLU's form"),
        ('{"text": "a", "info_list": 3, "schema": {}}', "line 1 is not in RexUniNLU's form"),
        ('{"text": "a", "info_list": [[{"type": "t", "span": "a", "offset": 1}]], "schema": {}}', "line 1 is not"),
    ],
)
def test_what_is_no_data_is_named_by_line(tmp_path: Path, content: str, message: str) -> None:
    """Whoever made the file finds the place."""
    path = tmp_path / "data.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        read_examples(str(path), JSON, None, None, LABELS)


def test_a_label_that_the_task_does_not_have_says_how_to_map_it(tmp_path: Path) -> None:
    """Scoring it would count every such text as wrong."""
    with pytest.raises(DataError, match=r"label '1' is not a type of task sentiment .* --label-map 1=TYPE"):
        read(tmp_path, {"text": "好", "label": 1}, task="sentiment")
