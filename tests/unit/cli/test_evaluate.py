from __future__ import annotations

import csv
import errno
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from annotated_lines import ASPECTS, fact, written
from click.testing import CliRunner, Result
from scripted_session import ScriptedSession, found

from consumer.cli import evaluate as module
from consumer.cli.evaluate import command

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("logging_as_before")

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
ROW = {
    "text": "#盖紧，瓶漏",
    "schema": ASPECTS,
    "info_list": [
        [fact("属性词", "盖", 1), fact(GOOD, "紧", 2)],
        [fact("属性词", "瓶", 4), fact(BAD, "漏", 5)],
        [fact("属性词", "#", 0), fact(GOOD, "紧", 2)],
    ],
    "pair_categories": ["包装", "质量", "整体"],
}
LID = found(("属性词", "盖", 0, 0.99), (GOOD, "紧", 1, 0.98))
WRONG = found(("属性词", "瓶", 3, 0.99), (GOOD, "漏", 4, 0.97))


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> ScriptedSession:
    """A model that finds one pair of ROW's, and gives the other the wrong polarity."""
    scripted = ScriptedSession({"盖紧，瓶漏": [LID, WRONG]})
    monkeypatch.setattr(module, "opened", scripted.opened)
    return scripted


def asked_whole(data: Path, *arguments: str) -> dict[str, Any]:
    result = evaluate("--data", str(data), "--json", *arguments)
    assert result.exit_code == 0, result.output
    whole: dict[str, Any] = json.loads(result.stdout)
    return whole


class TestCommand:
    """The command itself."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--task", "nope"], "there is no task 'nope'; the tasks are category"),
            (["--label-map", "1"], "'1' is not LABEL=TYPE"),
            (["--rename", "好=棒,坏"], "'坏' is not OLD=NEW, such as 属性词=产品方面"),
            (["--rename", "坏=糟"], "no schema has a type '坏'; the types are x"),
            (["--report", "report.txt"], "'report.txt' ends neither in .json nor in .csv"),
            (["--report", "nowhere/report.json"], "nowhere/report.json cannot be written: No such file or directory"),
            (["--categories-task", "category"], "--categories-task needs data with pair_categories"),
            (["--baseline-data", "none.jsonl"], "--baseline-data none.jsonl: "),
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
        lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[:6])
        assert (lines["metric"], lines["accuracy"], lines["failed"]) == ("accuracy", "1.0", "0")
        assert lines["model"].startswith("demo-model ")


class TestOutput:
    """What is printed and written."""

    def test_the_terminal_has_the_headline_and_the_tables(self, tmp_path: Path, session: ScriptedSession) -> None:
        """Strict and span, worst texts, and what a reader should know."""
        result = evaluate("--data", str(written(tmp_path, ROW)))
        assert result.exit_code == 0
        assert result.stdout.startswith("metric     strict\nprecision  0.5\nrecall     0.3333\nf1         0.4\n")
        assert "model      scripted 7" in result.stdout
        assert "− 属性词 瓶 → 负向情感(情感词) 漏 [4, 5)" in result.stdout
        assert "+ 属性词 瓶 → 正向情感(情感词) 漏 [4, 5)  0.97" in result.stdout
        assert "the gold has categories (3) and the schema predicts none" in " ".join(result.stdout.split())
        assert result.stderr == ""
        assert session.asked[0][0] == "盖紧，瓶漏"

    def test_a_metric_prints_its_figure_alone(self, tmp_path: Path, session: ScriptedSession) -> None:
        """As scripts read it; examples only where they are asked for."""
        data = str(written(tmp_path, ROW))
        result = evaluate("--data", data, "--metric", "trigger")
        lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert (lines["metric"], lines["precision"], lines["recall"]) == ("trigger", "1.0", "0.6667")
        assert list(lines)[-4:] == ["texts", "failed", "model", "seconds"]
        asked = evaluate("--data", data, "--metric", "trigger", "--examples", "1").stdout
        assert ("Worst texts" in asked, "Paths" in asked) == (True, False)
        assert session.asked

    def test_json_has_review_text_only_where_it_is_asked_for(self, tmp_path: Path, session: ScriptedSession) -> None:
        """Reports end in places where reviews must not; all else is there, with what was asked."""
        data = written(tmp_path, ROW)
        whole = asked_whole(data)
        assert (whole["metric"], whole["f1"], whole["texts"], whole["model"]) == ("strict", 0.4, 1, "scripted 7")
        assert "examples" not in whole
        assert "瓶漏" not in json.dumps(whole, ensure_ascii=False)
        assert whole["settings"]["data"] == str(data)
        assert whole["settings"]["schemas"][0]["schema"] == ASPECTS
        assert whole["settings"]["models"] == [{"name": "scripted", "version": "7", "signature": "serving_default"}]
        (example,) = asked_whole(data, "--examples", "3")["examples"]
        assert (example["number"], example["text"], len(example["missing"])) == (1, "盖紧，瓶漏", 2)
        assert asked_whole(data, "--examples", "0")["examples"] == []
        assert len(session.asked) == 3

    def test_reports_are_written_as_their_ending_says(self, tmp_path: Path, session: ScriptedSession) -> None:
        """JSON is what --json prints; CSV has a row for each number."""
        data, one, two = written(tmp_path, ROW), tmp_path / "report.json", tmp_path / "REPORT.CSV"
        whole = asked_whole(data, "--report", str(one), "--report", str(two))
        assert json.loads(one.read_text("utf-8")) == whole
        rows = list(csv.DictReader(two.read_text("utf-8").splitlines()))
        assert list(rows[0]) == ["section", "name", "metric", "value", "low", "high", "support"]
        (recall,) = (row for row in rows if row["name"] == BAD and row["metric"] == "recall")
        assert (recall["section"], recall["value"], recall["support"]) == ("type", "0.0", "1")
        assert session.asked

    def test_a_report_that_cannot_be_written_is_refused_before_the_model_runs(
        self, tmp_path: Path, session: ScriptedSession
    ) -> None:
        """And the try leaves no file behind, nor empties one; the data are never overwritten."""
        data = written(tmp_path, ROW)
        kept = tmp_path / "kept.csv"
        kept.write_text("as it was", "utf-8")
        new = tmp_path / "new.json"
        link = tmp_path / "link.csv"
        link.symlink_to(tmp_path / "target.csv")
        given = (kept, new, link, tmp_path / "no" / "x.csv")
        assert (
            evaluate("--data", str(data), *(each for path in given for each in ("--report", str(path)))).exit_code == 2
        )
        assert (kept.read_text("utf-8"), new.exists()) == ("as it was", False)
        assert (link.is_symlink(), link.exists()) == (True, False)
        as_data = written(tmp_path, ROW).rename(tmp_path / "data.json")
        result = evaluate("--data", str(as_data), "--report", str(as_data))
        assert (result.exit_code, "the data would be overwritten" in result.stderr) == (2, True)
        assert as_data.read_text("utf-8")
        result = evaluate("--data", str(data), "--baseline-data", str(as_data), "--report", str(as_data))
        assert (result.exit_code, "--report and --baseline-data are both" in result.stderr) == (2, True)
        assert session.asked == []

    def test_a_report_that_fails_in_the_end_takes_no_figure_along(
        self, tmp_path: Path, session: ScriptedSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that has become full costs the file, not the run."""

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        data = written(tmp_path, ROW)
        monkeypatch.setattr("pathlib.Path.write_text", refuse)
        result = evaluate("--data", str(data), "--report", str(tmp_path / "x.csv"))
        assert (result.exit_code, "x.csv cannot be written: No space left" in result.stderr) == (2, True)
        assert "f1         0.4\n" in result.stdout
        assert "Worst texts" in result.stdout
        assert session.asked

    def test_other_names_are_asked_and_the_gold_has_them_too(self, tmp_path: Path, session: ScriptedSession) -> None:
        """A model that answers under them scores the same."""
        renamed = [found(("产品方面", "盖", 0, 0.9), ("正面观点", "紧", 1, 0.9))]
        session.script = {"盖紧，瓶漏": renamed}
        whole = asked_whole(written(tmp_path, ROW), "--rename", f"属性词=产品方面, {GOOD}=正面观点")
        assert (whole["correct"], whole["predicted"], whole["gold"]) == (1, 1, 3)
        ((_, task),) = session.asked
        assert set(task.schema["产品方面"] or ()) == {"正面观点", BAD, "中性情感(情感词)"}
        assert whole["settings"]["rename"] == {"属性词": "产品方面", GOOD: "正面观点"}

    def test_a_task_for_pairs_makes_quadruples(self, tmp_path: Path, session: ScriptedSession) -> None:
        """Its categories have to be the gold's."""
        tasks = tmp_path / "tasks"
        tasks.mkdir()
        (tasks / "pairs.yaml").write_text("name: pairs\nkind: classify\nschema: {包装: , 质量: , 整体: }\n", "utf-8")
        session.script = {"盖紧，瓶漏": [LID], "盖紧": [found(("包装", None, None, 0.9))]}
        data, where = written(tmp_path, ROW), ("--tasks-dir", str(tasks))
        whole = asked_whole(data, *where, "--categories-task", "pairs")
        (quadruples, right) = (each for each in whole["figures"] if each["section"] == "quadruples")
        assert (quadruples["correct"], quadruples["predicted"], quadruples["support"]) == (1, 1, 3)
        assert (right["accuracy"], right["support"], whole["notes"]) == (1.0, 1, [])
        assert whole["settings"]["categories_task"] == "pairs"
        session.script["盖紧"] = [found(("包裹", None, None, 0.9))]
        other = asked_whole(data, *where, "--categories-task", "pairs", "--rename", "包装=包裹")
        assert set(session.asked[-1][1].schema) == {"包裹", "质量", "整体"}
        assert [each for each in other["figures"] if each["section"] == "quadruples"] == [quadruples, right]
        for name, words in (("sentiment", "has none of the gold's categories (包装, 整体, 质量)"), ("ner", "extracts")):
            result = evaluate("--data", str(data), *where, "--categories-task", name)
            assert (result.exit_code, words in " ".join(result.stderr.split())) == (2, True)

    def test_the_baseline_learns_from_the_data_given(self, tmp_path: Path, session: ScriptedSession) -> None:
        """Labels are mapped there as well; extraction has none."""
        session.script = {"好用": [found(("好评", None, None, 0.9))], "真差": [found(("好评", None, None, 0.8))]}
        rows = [{"text": "好用", "label": 1}, {"text": "真差", "label": 0}]
        data = written(tmp_path, *rows).rename(tmp_path / "test.jsonl")
        train = written(tmp_path, {"text": "很好用", "label": 1}, {"text": "太差", "label": 0}, rows[0])
        whole = asked_whole(data, "--label-map", "1=好评,0=差评", "--baseline-data", str(train))
        assert (whole["accuracy"], whole["baseline"]["figures"][0]["accuracy"]) == (0.5, 1.0)
        assert whole["baseline"]["trained_on"] == "trained on 2 texts (1 that are to be scored were left out)"
        aspects = written(tmp_path, ROW)
        result = evaluate("--data", str(aspects), "--baseline-data", str(aspects))
        assert (result.exit_code, "belongs to classification" in result.stderr) == (2, True)

    def test_review_text_is_in_no_log(self, tmp_path: Path, session: ScriptedSession, caplog: Any) -> None:
        """It is shown on the terminal of whoever asked."""
        result = evaluate("--data", str(written(tmp_path, ROW)), "--examples", "5")
        assert ("瓶漏" in result.stdout, "瓶漏" in result.stderr, "瓶漏" in caplog.text) == (True, False, False)
        assert session.asked
