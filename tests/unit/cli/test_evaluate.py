from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from click.testing import CliRunner, Result

from consumer.cli.evaluate import METRICS, DataError, Labels, Named, Score, command, read_examples, reduced
from consumer.config.task_files import load_tasks
from consumer.local.review_files import InputForm

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.cli.evaluate import Example, Metric, NamedPath

pytestmark = pytest.mark.usefixtures("logging_as_before")

JSON = InputForm()
LABELS = Labels("label", None, {})
ASPECTS = {"属性词": {"正向情感(情感词)": None, "负向情感(情感词)": None, "中性情感(情感词)": None}}


def fact(kind: str, span: str, start: int) -> dict[str, Any]:
    return {"type": kind, "span": span, "offset": [start, start + len(span)]}


def written(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def read(tmp_path: Path, *rows: Any, limit: int | None = None, task: str | None = None) -> list[Example]:
    chosen = load_tasks()[task] if task else None
    return read_examples(str(written(tmp_path, *rows)), JSON, limit, chosen, LABELS)


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


class TestData:
    """What the model is asked, and what it should say."""

    def test_the_implicit_aspect_is_taken_off_and_offsets_move_along(self, tmp_path: Path) -> None:
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

    def test_a_text_that_merely_begins_with_a_hash_keeps_it(self, tmp_path: Path) -> None:
        """Without an implicit aspect in the data, # is a character of the text."""
        row = {"text": "#桂林 开会", "schema": {"地点": None}, "info_list": [[fact("地点", "桂林", 1)]]}
        (example,) = read(tmp_path, row)
        assert (example.text, example.task.implicit_aspect) == ("#桂林 开会", None)
        assert example.gold == {(Named("地点", "桂林", 1, 3),)}

    @pytest.mark.parametrize(("marker", "kind"), [("[CLASSIFY]", "classify"), ("[MULTICLASSIFY]", "multi_classify")])
    def test_classification_markers_become_the_kind(self, tmp_path: Path, marker: str, kind: str) -> None:
        """The engine puts the marker itself; classes have no span."""
        row = {"text": marker + "到货慢", "schema": {"物流": None}, "info_list": [[fact("物流", marker, 0)]]}
        (example,) = read(tmp_path, row)
        assert (example.text, example.task.kind) == ("到货慢", kind)
        assert example.gold == {(Named("物流", None, None, None),)}

    def test_equal_schemas_are_one_task_and_legal_paths_belong_to_it(self, tmp_path: Path) -> None:
        """The engine's cache is by task."""
        row = {"text": "包装好", "schema": ASPECTS, "info_list": []}
        one, two, other = read(tmp_path, row, row, row | {"legal_output_type_list": [["属性词"]]})
        assert one.task is two.task
        assert other.task.legal_paths == frozenset({("属性词",)})

    def test_a_task_replaces_schema_and_kind(self, tmp_path: Path) -> None:
        """Data of other names can be asked with a task of ours."""
        (example,) = read(tmp_path, {"text": "包装好", "info_list": []}, task="product_features")
        assert example.task.name == "product_features"

    def test_labels_become_classes(self, tmp_path: Path) -> None:
        """Numbers are mapped by name; without a task, the labels that occur are the schema."""
        path = tmp_path / "shop.jsonl.gz"
        rows = [{"review": "好用", "stars": 1}, {"review": "坏了", "stars": 0}, {"review": "退了", "stars": 0}]
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        labels = Labels("stars", None, {"1": "正向情感", "0": "负向情感"})
        good, bad = read_examples(str(path), InputForm(text_field="review"), 2, None, labels)
        assert (good.text, good.task.kind, list(good.task.schema)) == ("好用", "classify", ["正向情感", "负向情感"])
        assert good.gold == {(Named("正向情感", None, None, None),)}
        assert bad.gold == {(Named("负向情感", None, None, None),)}

    def test_tables_and_plain_text_are_data_too(self, tmp_path: Path) -> None:
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

    def test_the_limit_counts_lines_that_hold_something(self, tmp_path: Path) -> None:
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
            ('{"text": "a", "label": "x"}\n[]', "line 2 is not a JSON object"),
            ('{"text": "a", "label": "x"}\n{', "line 2 is not JSON"),
            ('{"text": "a", "info_list": [], "schema": {}}\n{"text": "b"}', "line 2 has no info_list, others have"),
            ('{"text": "a", "info_list": []}', "line 1 is not in RexUniNLU's form .no 'schema'"),
            ('{"text": "a", "info_list": [["x"]], "schema": {}}', "line 1 is not in RexUniNLU's form"),
            ('{"text": "a", "info_list": 3, "schema": {}}', "line 1 is not in RexUniNLU's form"),
            ('{"text": "a", "info_list": [[{"type": "t", "span": "a", "offset": 1}]], "schema": {}}', "line 1 is not"),
        ],
    )
    def test_what_is_no_data_is_named_by_line(self, tmp_path: Path, content: str, message: str) -> None:
        """Whoever made the file finds the place."""
        path = tmp_path / "data.jsonl"
        path.write_text(content, "utf-8")
        with pytest.raises(DataError, match=message):
            read_examples(str(path), JSON, None, None, LABELS)

    def test_a_label_that_the_task_does_not_have_says_how_to_map_it(self, tmp_path: Path) -> None:
        """Scoring it would count every such text as wrong."""
        with pytest.raises(DataError, match=r"label '1' is not a type of task sentiment .* --label-map 1=TYPE"):
            read(tmp_path, {"text": "好", "label": 1}, task="sentiment")


def path(*facts: tuple[str, str | None, int | None]) -> NamedPath:
    return tuple(
        Named(kind, span, start, None if start is None else start + len(span or "")) for kind, span, start in facts
    )


class TestScores:
    """Which paths count as the same."""

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
    )
    def test_each_metric_compares_its_part_of_a_path(self, ours: NamedPath, same: set[Metric]) -> None:
        """From everything (strict) down to the types alone (accuracy)."""
        assert {metric for metric in METRICS if reduced(metric, [ours]) == reduced(metric, [self.GOLD])} == same

    def test_precision_recall_and_f1_are_over_all_texts_together(self) -> None:
        """Micro: a text with many paths weighs more."""
        score = Score("strict")
        x, y, z = (path((name, name, 0)) for name in "xyz")
        score.add([x, y, z], [x])
        score.add([x], [x, y])
        score.add([], [z])
        assert (score.predicted, score.gold, score.correct) == (4, 4, 2)
        numbers = score.report()
        assert (numbers["precision"], numbers["recall"], numbers["f1"]) == (0.5, 0.5, 0.5)

    def test_accuracy_wants_exactly_the_classes_of_a_text(self) -> None:
        """Half right is wrong."""
        score = Score("accuracy")
        x, y = path(("x", None, None)), path(("y", None, None))
        score.add([x], [x])
        score.add([x, y], [x])
        score.add([], [x])
        score.add([], [])
        assert score.report() == {"metric": "accuracy", "accuracy": 0.5, "correct": 2}

    def test_nothing_predicted_and_nothing_wanted_is_no_division_by_zero(self) -> None:
        """All zeros."""
        numbers = Score("strict").report()
        assert (numbers["precision"], numbers["recall"], numbers["f1"]) == (0.0, 0.0, 0.0)
        assert Score("accuracy").report()["accuracy"] == 0.0


class TestCommand:
    """The command itself."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--task", "nope"], "there is no task 'nope'; the tasks are category"),
            (["--label-map", "1"], "'1' is not LABEL=TYPE"),
            (["--label-field", "stars"], "line 1 has neither info_list nor stars"),
        ],
    )
    def test_bad_usage_is_2_and_says_the_way_out(self, tmp_path: Path, arguments: list[str], words: str) -> None:
        """Before any model is loaded."""
        result = evaluate("--data", str(written(tmp_path, {"text": "好", "label": "x"})), *arguments)
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.replace("│", "").split())

    def test_a_text_that_fails_counts_as_not_found_and_the_exit_code_says_so(
        self, tmp_path: Path, stub_server: Any
    ) -> None:
        """A stub that finds nothing: nothing predicted, all gold missed, one text too long."""
        gold = [[fact("属性词", "盖", 0), fact("正向情感(情感词)", "紧", 1)]]
        row = {"text": "盖紧", "schema": ASPECTS, "info_list": gold}
        data = written(tmp_path, row, row | {"text": "盖紧" * 30_000})
        result = evaluate("--data", str(data), "--server", stub_server.address, "--json")
        assert result.exit_code == 1
        outcome = json.loads(result.stdout)
        assert (outcome["metric"], outcome["texts"], outcome["failed"]) == ("strict", 2, {"TextTooLong": 1})
        assert (outcome["predicted"], outcome["gold"], outcome["correct"], outcome["f1"]) == (0, 2, 0, 0.0)
        assert outcome["model"] == "rexuninlu 5"

    def test_a_model_that_is_not_the_bundle_s_is_3_and_no_score(self, tmp_path: Path, stub_server: Any) -> None:
        """A served vocabulary that is smaller would score as a model that finds nothing."""

        def refuse(_: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "indices[0,1] = 4095 is not in [0, 1000)")

        stub_server.refuse = refuse
        data = written(tmp_path, {"text": "不错", "label": "好"}, {"text": "太差", "label": "差"})
        result = evaluate("--data", str(data), "--server", stub_server.address, "--json")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "bundle and served model do not belong together" in result.stderr

    @pytest.mark.model
    def test_the_demo_model_scores_on_its_own_ground(self, tmp_path: Path) -> None:
        """Accuracy is the default for one class a text, and easy reviews are right."""
        pytest.importorskip("tensorflow", reason="the [model] extra is not installed")
        rows = [{"text": "质量很好，非常喜欢", "label": 1}, {"text": "太差了，再也不买", "label": 0}]
        data = written(tmp_path, *rows)
        result = evaluate("--data", str(data), "--task", "sentiment", "--label-map", "1=正向情感,0=负向情感")
        assert result.exit_code == 0
        lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert (lines["metric"], lines["accuracy"], lines["failed"]) == ("accuracy", "1.0", "0")
        assert lines["model"].startswith("demo-model ")
