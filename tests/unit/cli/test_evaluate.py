from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from annotated_lines import ASPECTS, fact, written
from click.testing import CliRunner, Result

from consumer.cli.annotated_data import Named
from consumer.cli.evaluate import METRICS, Score, command, reduced

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.cli.annotated_data import NamedPath
    from consumer.cli.evaluate import Metric

pytestmark = pytest.mark.usefixtures("logging_as_before")


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


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
