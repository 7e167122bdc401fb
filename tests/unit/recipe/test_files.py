"""Sets of the configuration as the recipe reads them, and what it says of files that it cannot read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from recipe import sources
from recipe.measuring import held_out_lines, measured
from recipe.naming import CANONICAL, Naming
from recipe.rows import DataError, Row, Span, kept_for_validation, read_rows
from recipe.sources import Sources, intents_of, makers, read_sources, sentiments_of

if TYPE_CHECKING:
    from pathlib import Path

    from recipe.samples import Layout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", "好".encode("gbk"), "cannot be read: .*; expected UTF-8 text, or its gzip"),
        ("rows.jsonl.gz", b"no gzip", "cannot be read: .*; expected UTF-8 text, or its gzip"),
        ("rows.jsonl", b"[1]\n", "line 1: .*; see deploy/demo-model/README.md"),
    ],
    ids=["other-encoding", "no-gzip", "no-object"],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """With what was expected, and no traceback."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{said}"):
        read_rows(tmp_path / name)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    """``--data`` of training is a folder."""
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "data/set.jsonl")


def test_a_table_that_is_missing_or_has_one_column_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in recipe.yaml must not train without its labels."""
    monkeypatch.setattr("recipe.sources.FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"labels\.tsv does not exist"):
        sources._table("labels.tsv")
    (tmp_path / "labels.tsv").write_text("# read\nos-1\t1\nos-2 0\n")
    with pytest.raises(DataError, match="line 3: expected review_id, a tab and a label, got 'os-2 0'"):
        sources._table("labels.tsv")


def test_a_sentiment_that_is_neither_is_refused() -> None:
    """It would be taught as a complaint, every one."""
    rows = [Row("好", ((Span("好评", 0, 0),),), {"好评": None}, "classify")]
    found = Sources(rows={"sentiments": {"shops": rows}})
    with pytest.raises(DataError, match="shops: type '好评' starts with neither 正 nor 负"):
        sentiments_of(found, {"shops": {"share": 1}})
    with pytest.raises(DataError, match="shopp has no file"):
        sentiments_of(Sources(rows={"sentiments": {}}), {"shopp": 1})


def test_a_measure_without_rows_is_named(tmp_path: Path) -> None:
    """Evaluation of nothing says nothing."""
    lines = [json.dumps({"text": f"第{number}条"}) + "\n" for number in range(60)]
    sides = [kept_for_validation(json.loads(line)["text"]) for line in lines]
    (tmp_path / "set.jsonl").write_text("".join(line for line, held in zip(lines, sides, strict=True) if not held))
    assert not list(held_out_lines(tmp_path / "set.jsonl"))
    with pytest.raises(DataError, match=r"set\.jsonl has no text on the validation side"):
        list(measured(tmp_path, {"set": "set.jsonl", "figures": []}, tmp_path, tmp_path))
    with pytest.raises(DataError, match=r"other\.jsonl does not exist"):
        list(measured(tmp_path, {"set": "other.jsonl", "figures": []}, tmp_path, tmp_path))


class TestSources:
    """Sets of the configuration, and what this folder adds to the user's."""

    CONFIG: ClassVar[dict[str, Any]] = {
        "aspects": {"shop": {"of_shop": "shop_features.jsonl", "style": CANONICAL, "share": 1}},
        "shop": {"file": "shop.jsonl", "intents": "intents.tsv", "labels": "labels.tsv", "written": "shop.jsonl"},
        **{group: {} for group in ("sentiments", "entities", "classes", "nested", "pairs")},
    }

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Four shop reviews of the training side, and what is known of them beside their own labels."""
        texts = [
            text for text in (f"包装很好，物流慢{number}" for number in range(20)) if not kept_for_validation(text)
        ][:4]
        rows = [{"review_id": f"os-{i}", "text": t, "label": 1, "category": "手机"} for i, t in enumerate(texts)]
        (tmp_path / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "labels.tsv").write_text("# read\nos-1\t0\nos-2\tnone\n")
        (tmp_path / "intents.tsv").write_text("os-3\tyes\nos-9\tno\n")
        features = [
            {"review_id": "os-0", "features": [["包装", "很好", "正"], ["物流", "慢", "负"]]},
            {"review_id": "x", "features": []},
        ]
        (tmp_path / "shop_features.jsonl").write_text("".join(json.dumps(row) + "\n" for row in features))
        monkeypatch.setattr("recipe.sources.FOLDER", tmp_path)
        return tmp_path

    def test_labels_intents_and_facts_are_joined_by_review_id(self, folder: Path) -> None:
        """A careful reader's label takes the place of the data's, or takes it away; unknown ids are others' reviews."""
        sources = read_sources(self.CONFIG, folder, validation=False)
        assert [row.fields.get("label") for row in sources.shop] == [1, 0, None, 1]
        ((text, positive), *_), _ = sentiments_of(sources, {"shop": 1})[0]
        assert positive
        assert len(sentiments_of(sources, {"shop": 1})[0][0]) == 3
        assert intents_of(sources) == [(sources.shop[3].text, "yes")]
        (review,) = sources.reviews["shop"]
        assert review.text == f"#{text}"
        assert [review.text[slice(*fact.aspect)] for fact in review.facts] == ["包装", "物流"]

    def test_a_set_whose_own_types_are_held_out_is_refused(self, layout: Layout) -> None:
        """Its figure under names never trained would be none."""
        rows = {"nested": {"mine": [Row("好", schema={"词": {"抱怨的话": None}})]}}
        with pytest.raises(DataError, match="asks for 抱怨的话, which is under held_out"):
            makers(Sources(rows=rows), self.CONFIG, layout, Naming.read())

    def test_facts_of_another_text_are_refused(self, folder: Path) -> None:
        """The user's shop reviews must be those that were annotated."""
        (folder / "shop_features.jsonl").write_text('{"review_id": "os-0", "features": [["屏幕", "大", "正"]]}\n')
        with pytest.raises(DataError, match=r"shop_features\.jsonl, line 1: .* are others than those annotated"):
            read_sources(self.CONFIG, folder, validation=False)
