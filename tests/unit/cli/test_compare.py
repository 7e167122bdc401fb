"""``rexstream compare``: the command, with scripted models and with servers."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from annotated_lines import ASPECTS, fact, written
from click.testing import CliRunner, Result
from scripted_session import ScriptedSession, found
from stub_server import StubServer, write_bundle

from consumer.cli import comparison_sides
from consumer.cli.compare import command
from consumer.cli.comparison_run import CHUNK, LEAST, TURNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from consumer.cli.model_source import ModelSource

pytestmark = pytest.mark.usefixtures("logging_as_before")

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
LID = found(("属性词", "盖", 0, 0.99), (GOOD, "紧", 1, 0.98))
LEAK = found(("属性词", "瓶", 3, 0.99), (BAD, "漏", 4, 0.97))
TURNED = found(("属性词", "瓶", 3, 0.99), (GOOD, "漏", 4, 0.67))
PRAISE = found(("属性词", None, None, 0.9), (GOOD, "好", 0, 0.9))
REVIEWS = [{"text": "盖紧，瓶漏"}, {"text": "好"}, {"text": "嗯"}]
OLD = {"盖紧，瓶漏": [LID, LEAK], "好": [PRAISE], "嗯": []}
NEW = {"盖紧，瓶漏": [LID, TURNED], "好": [PRAISE], "嗯": []}

ROW = {
    "text": "盖紧，瓶漏",
    "schema": ASPECTS,
    "info_list": [
        [fact("属性词", "盖", 0), fact(GOOD, "紧", 1)],
        [fact("属性词", "瓶", 3), fact(BAD, "漏", 4)],
    ],
}


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


class Models:
    """Scripts of both sides: the side that has a checkpoint of its own is the new one."""

    def __init__(self) -> None:
        self.old, self.new = ScriptedSession(dict(OLD)), ScriptedSession(dict(NEW))

    @contextmanager
    def opened(self, source: ModelSource, *_: Any) -> Iterator[ScriptedSession]:
        """Stands for ``model_source.opened``."""
        yield self.old if source.checkpoint is None else self.new


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    scripted = Models()
    monkeypatch.setattr(comparison_sides, "opened", scripted.opened)
    return scripted


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """Arguments that compare both scripts on REVIEWS."""
    return [
        "--input",
        str(written(tmp_path, *REVIEWS)),
        "--task",
        "product_features",
        "--new-checkpoint",
        str(tmp_path),
    ]


def whole(arguments: Sequence[str], code: int = 0) -> dict[str, Any]:
    result = compare(*arguments, "--json", "-")
    assert result.exit_code == code, result.output
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def task_folder(tmp_path: Path, name: str, *tasks: tuple[str, str]) -> str:
    folder = tmp_path / name
    folder.mkdir()
    for task, kind in tasks:
        (folder / f"{task}.yaml").write_text(f"name: {task}\nkind: extract\nschema: {{{kind}: null}}\n", "utf-8")
    return str(folder)


class TestBothAnswered:
    """Two models that answer."""

    def test_every_figure_by_hand(self, models: Models, asked: list[str]) -> None:
        """3 paths each, 2 of them the same; one polarity turned."""
        found = whole(asked)
        everything, good, bad = found["agreement"]
        assert (everything["task"], everything["agreement"], everything["texts"], everything["same"]) == (
            *("product_features", 0.6667),
            *(3, 2),
        )
        assert [everything[name] for name in ("both", "only_old", "only_new")] == [2, 1, 1]
        assert (good["type"], good["both"], good["only_old"], good["only_new"]) == (f"属性词/{GOOD}", 2, 0, 1)
        assert (bad["type"], bad["both"], bad["only_old"], bad["only_new"]) == (f"属性词/{BAD}", 0, 1, 0)
        (scores,) = found["scores"]
        assert (scores["both_old"], scores["shift"], scores["only_old"], scores["only_new"]) == (0.94, 0, 0.97, 0.67)
        assert (found["texts"], found["failed"], found["gold"]) == (3, {"both": 0, "old": 0, "new": 0}, None)
        assert found["models"]["new"] == [{"name": "scripted", "version": "7", "signature": "serving_default"}]
        assert [text for text, _ in models.old.asked] == [text for text, _ in models.new.asked]

    def test_the_json_object_keeps_its_keys(self, models: Models, asked: list[str]) -> None:
        """And has no review text unless it is asked for."""
        found = whole(asked)
        assert list(found) == [
            *("data", "texts", "unreadable", "models", "tasks", "only", "reasons"),
            *("failed", "agreement", "moves", "scores", "times", "gold", "bounds"),
        ]
        assert found["bounds"] == {"min_agreement": None, "max_drop": None, "crossed": []}
        assert "瓶漏" not in json.dumps(found, ensure_ascii=False)
        (example,) = whole([*asked, "--examples", "9"])["examples"]
        assert (example["line"], example["text"], example["only_new"][0]["score"]) == (1, "盖紧，瓶漏", 0.67)
        assert models.old.asked

    def test_the_terminal_shows_what_only_one_found(self, models: Models, asked: list[str], tmp_path: Path) -> None:
        """With the tables; the file of --json is written beside them."""
        result = compare(*asked, "--json", str(tmp_path / "found.json"))
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("old        scripted 7\nnew        scripted 7\ntexts      3\n")
        assert "− 属性词 瓶 → 负向情感(情感词) 漏 [4, 5)  0.97" in result.stdout
        assert "+ 属性词 瓶 → 正向情感(情感词) 漏 [4, 5)  0.67" in result.stdout
        assert json.loads((tmp_path / "found.json").read_text("utf-8"))["texts"] == 3
        assert models.old.asked

    @pytest.mark.parametrize(("bound", "code"), [("0.66", 0), ("0.67", 1)])
    def test_a_bound_decides_the_exit_code(self, models: Models, asked: list[str], bound: str, code: int) -> None:
        """The figures are printed all the same, with what was crossed."""
        result = compare(*asked, "--min-agreement", bound)
        assert result.exit_code == code
        assert ("Bound crossed: agreement of task product_features is 0.6667" in result.stdout) == bool(code)
        assert whole([*asked, "--min-agreement", bound], code)["bounds"]["min_agreement"] == float(bound)
        assert models.old.asked

    def test_a_task_below_the_bound_is_not_hidden_by_the_others(self, models: Models, asked: list[str]) -> None:
        """Each is held to it."""
        result = compare(*asked, "--task", "sentiment", "--min-agreement", "0.7")
        assert result.exit_code == 1
        assert result.stdout.count("Bound crossed") == 2  # the scripts answer both tasks alike
        assert models.new.asked

    def test_a_text_that_the_new_side_alone_cannot_process_is_1(self, models: Models, asked: list[str]) -> None:
        """It counts as one that differs; where both cannot, it says nothing of the new one."""
        del models.new.script["嗯"]  # type: ignore[attr-defined]
        found = whole(asked, 1)
        assert (found["failed"], found["reasons"]["new"]) == ({"both": 0, "old": 0, "new": 1}, {"TextTooLong": 1})
        assert found["agreement"][0]["same"] == 1
        del models.old.script["嗯"]  # type: ignore[attr-defined]
        assert whole(asked)["failed"] == {"both": 1, "old": 0, "new": 0}
        models.old.script = {}
        assert "old cannot process 3 texts: TextTooLong" in compare(*asked).stdout
        models.new.script = {}
        assert compare(*asked).exit_code == 1  # nothing was compared

    def test_sides_are_asked_in_turns_and_the_first_one_changes(
        self, models: Models, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that a machine that gets slower favours nobody."""
        order: list[str] = []
        for name in ("old", "new"):
            session = getattr(models, name)

            def run(starts: Any, name: str = name, session: Any = session) -> Any:
                order.append(f"{name} {len(starts)}")
                return type(session).run(session, starts)

            monkeypatch.setattr(session, "run", run)
        written(tmp_path, *([{"text": "好"}] * (2 * LEAST + 1)))
        assert whole(asked)["times"]["turns"] == 2
        sides = ("old", "new", "new", "old", "old", "new")
        sizes = (LEAST, LEAST, LEAST, LEAST, 1, 1)
        assert order == [f"{side} {size}" for side, size in zip(sides, sizes, strict=True)]
        order.clear()
        written(tmp_path, *([{"text": "好"}] * (CHUNK * TURNS + 1)))
        assert whole(asked)["times"]["turns"] == TURNS
        assert order[:2] == [f"old {CHUNK}", f"new {CHUNK}"]


class TestTasks:
    """Which tasks are compared."""

    def test_tasks_of_one_name_with_two_schemas(self, models: Models, asked: list[str], tmp_path: Path) -> None:
        """Each side asks its own; the shipped one's place is taken on one side alone."""
        folder = task_folder(tmp_path, "proposed", ("product_features", "优点"))
        found = whole([*asked, "--new-tasks-dir", folder])
        (task,) = found["tasks"]
        assert task["task"] == "product_features"
        assert task["old"] != task["new"]
        assert list(models.new.asked[0][1].schema) == ["优点"]
        assert list(models.old.asked[0][1].schema) == ["属性词"]

    def test_a_task_that_one_side_has_is_named(self, models: Models, asked: list[str], tmp_path: Path) -> None:
        """And not compared."""
        folder = task_folder(tmp_path, "more", ("defects", "缺点"))
        arguments = [*asked, "--new-tasks-dir", folder, "--task", "defects"]
        assert "task defects is the new side's only (3 lines): not compared" in compare(*arguments).stdout
        found = whole(arguments)
        assert (found["only"], [each["task"] for each in found["tasks"]]) == (
            {"old": {}, "new": {"defects": 3}},
            ["product_features"],
        )
        assert len(models.old.asked) == len(models.new.asked)

    def test_lines_choose_tasks_and_bring_schemas(self, models: Models, tmp_path: Path) -> None:
        """As extract reads them; what no side can read is counted."""
        lines = [
            {"text": "好", "tasks": ["sentiment"]},
            {"text": "嗯", "schema": {"优点": None}},
            {"text": "好"},
            ["x"],
        ]
        found = whole(["--input", str(written(tmp_path, *lines)), "--new-checkpoint", str(tmp_path)])
        assert [each["task"] for each in found["tasks"]] == ["inline", "sentiment"]
        assert (found["texts"], found["unreadable"]) == (4, {"NoTasks": 1, "InvalidEvent": 1})
        assert models.old.asked

    def test_a_column_of_a_table_is_read(self, models: Models, tmp_path: Path) -> None:
        """All formats of extract."""
        (tmp_path / "reviews.csv").write_text("id,review\n1,好\n2,嗯\n", "utf-8")
        found = whole(
            [
                *("--input", str(tmp_path / "reviews.csv"), "--column", "review", "--task", "sentiment"),
                *("--new-checkpoint", str(tmp_path), "--limit", "1"),
            ]
        )
        assert (found["texts"], models.old.asked[0][0]) == (1, "好")


class TestGold:
    """With annotations."""

    def test_f1_of_both_and_a_bound_on_what_is_lost(self, models: Models, tmp_path: Path) -> None:
        """Old has both right, new one of two."""
        arguments = ["--input", str(written(tmp_path, ROW)), "--gold", "--new-checkpoint", str(tmp_path)]
        found = whole(arguments)["gold"]
        everything = found["difference"][0]
        assert (everything["old"], everything["new"], everything["difference"], everything["gold"]) == (1, 0.5, -0.5, 2)
        assert (found["calibration"]["old"]["share_right"], found["calibration"]["new"]["facts"]) == (1.0, 4)
        assert compare(*arguments, "--max-drop", "0.5").exit_code == 0
        result = compare(*arguments, "--max-drop", "0.49")
        assert result.exit_code == 1
        assert "F1 of task data drops by 0.5000, and at most 0.49 is allowed" in " ".join(result.stdout.split())
        assert "Against the gold" in result.stdout
        assert models.old.asked

    def test_labels_are_gold_too(self, models: Models, tmp_path: Path) -> None:
        """Of a task by name, mapped to its types."""
        vote = found(("正向情感", None, None, 0.9))
        models.old.script, models.new.script = {"好": [vote]}, {"好": []}
        data = written(tmp_path, {"text": "好", "stars": 5})
        arguments = ["--input", str(data), "--gold", "--task", "sentiment", "--new-checkpoint", str(tmp_path)]
        (difference, *_) = whole([*arguments, "--label-field", "stars", "--label-map", "5=正向情感"])["gold"][
            "difference"
        ]
        assert (difference["metric"], difference["old"], difference["new"]) == ("accuracy", 1, 0)


class TestUsage:
    """What is refused, and how."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "both sides are the same: say in what they differ"),
            (["--new-version", "2"], "--new-version belongs to a server: give --new-server or --server"),
            (["--new-label", "canary"], "--new-label belongs to a server"),
            (["--server", "x:1", "--new-version", "2", "--new-label", "x"], "--new-version and --new-label exclude"),
            (["--new-server", "x:1", "--new-checkpoint", "."], "--new-server and --new-checkpoint exclude"),
            (["--old-server", "nowhere"], "old: --old-server"),
            (["--old-export", "."], "is no version folder of 'rexstream export'"),
            (["--new-checkpoint", ".", "--max-drop", "0.1"], "--max-drop needs annotations to score: --gold"),
            (["--new-checkpoint", ".", "--min-agreement", "95"], "95.0 is not in the range 0<=x<=1"),
            (["--new-checkpoint", ".", "--task", "nope"], "there is no task 'nope'; the tasks are category"),
            (["--new-checkpoint", ".", "--json", "nowhere/x.json"], "nowhere/x.json cannot be written"),
            (["--new-checkpoint", ".", "--gold", "--task", "sentiment", "--task", "category"], "--gold is of one task"),
        ],
    )
    def test_bad_usage_is_2_and_says_the_way_out(self, tmp_path: Path, arguments: list[str], words: str) -> None:
        """Before any review is read."""
        given = ["--input", str(written(tmp_path, *REVIEWS)), "--old-checkpoint", str(tmp_path)]
        if not arguments or {"--old-export", "--old-server", "--server"} & {*arguments}:
            given = given[:2]
        result = compare(*given, *arguments)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.stderr.replace("│", "").split())

    def test_an_empty_file_is_2(self, models: Models, asked: list[str], tmp_path: Path) -> None:
        """Nothing was compared, and a bound that nothing crosses would say that all is well."""
        written(tmp_path)
        result = compare(*asked)
        assert (result.exit_code, "holds no review" in result.stderr) == (2, True)
        assert compare(*asked, "--gold").exit_code == 2
        (tmp_path / "data.jsonl").unlink()
        result = compare(*asked)
        assert (result.exit_code, "No such file" in result.stderr) == (2, True)
        assert models.old.asked == []

    def test_the_reviews_are_never_overwritten(self, models: Models, asked: list[str], tmp_path: Path) -> None:
        """By a slip of --json."""
        result = compare(*asked, "--json", str(tmp_path / "data.jsonl"))
        assert (result.exit_code, "would be overwritten" in result.stderr) == (2, True)
        assert models.old.asked == []

    def test_text_without_tasks_is_2(self, models: Models, tmp_path: Path) -> None:
        """With their names."""
        (tmp_path / "reviews.txt").write_text("好\n", "utf-8")
        result = compare("--input", str(tmp_path / "reviews.txt"), "--new-checkpoint", str(tmp_path))
        assert (result.exit_code, "names no tasks; choose with --task: category" in result.stderr) == (2, True)
        assert models.old.asked == []


class TestServers:
    """Model servers: two of them with tokenizers of their own, away, and without what is asked for."""

    @pytest.fixture
    def other(self) -> Iterator[StubServer]:
        server = StubServer()
        yield server
        server.stop()

    @pytest.fixture
    def both(self, tmp_path: Path, stub_server: Any, other: StubServer) -> list[str]:
        bundle = write_bundle(tmp_path / "bundle")
        return [
            *("--input", str(written(tmp_path, *REVIEWS)), "--task", "product_features"),
            *("--old-server", stub_server.address, "--new-server", other.target, "--new-bundle", str(bundle)),
        ]

    def test_each_is_read_with_its_own_bundle(self, both: list[str]) -> None:
        """Old finds nothing in any text, new something in each: none of what it finds is shared."""
        found = whole(both)
        assert [found["models"][side][0]["version"] for side in ("old", "new")] == ["5", "1"]
        everything = found["agreement"][0]
        assert (everything["agreement"], everything["both"], everything["only_old"]) == (0.0, 0, 0)
        assert everything["only_new"] > 0
        assert found["times"]["turns"] == 1

    def test_a_bundle_of_another_model_is_3(self, both: list[str]) -> None:
        """It does not guess; the message names the side and its option."""
        result = compare(*both[:-2])
        assert (result.exit_code, result.stdout) == (3, "")
        assert "new: the served model cannot be used" in result.stderr
        assert "--new-bundle" in result.stderr

    def test_a_server_that_is_away_is_3(self, both: list[str], other: StubServer) -> None:
        """At the start."""
        other.stop()
        result = compare(*both)
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"new: no version of model 'rexuninlu' is AVAILABLE at {other.target}" in result.stderr

    def test_a_server_that_goes_away_is_3(self, both: list[str], other: StubServer, monkeypatch: Any) -> None:
        """No figure of half the reviews."""
        monkeypatch.setattr("consumer.offline.PAUSES", SimpleNamespace(pause=lambda _: 0.0))

        def refuse(_: Any, context: Any) -> None:
            if other.calls > 1:
                other.away(away=True)
                other.before(_, context)

        other.before = refuse
        result = compare(*both)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "new: the model server cannot be used: UNAVAILABLE" in result.stderr

    def test_a_version_that_is_not_there_is_3_and_says_which_are(self, tmp_path: Path, stub_server: Any) -> None:
        """A slip of a number is seen at once."""
        data = str(written(tmp_path, *REVIEWS))
        given = ("--input", data, "--task", "product_features", "--server", stub_server.address, "--old-version", "5")
        result = compare(*given, "--new-version", "6")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "new: version 6 of model 'rexuninlu' is not AVAILABLE" in result.stderr
        assert "which has version 5 AVAILABLE: load it, or change --new-version" in result.stderr
        result = compare(*given, "--new-label", "canary")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "Unrecognized servable version label: canary" in result.stderr
        assert "change --new-label (it has version 5 AVAILABLE)" in result.stderr
        assert whole([*given, "--new-version", "5", "--min-agreement", "1"])["agreement"][0]["agreement"] == 1.0
