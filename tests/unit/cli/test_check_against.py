"""``rexstream check --against``, and what ``--connect`` reads at the end of the output topics."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from stub_server import StubServer, write_bundle

from consumer.cli import change_findings, cli
from consumer.cli.change_findings import last_result_findings
from consumer.codecs.outputs import result_id
from consumer.config.loading import load
from consumer.kafka.clients.cluster import Reader, TopicUnusable
from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

WORKER = (
    "routes: [{input: raw, tasks: [brand, sentiment], output: facts, inline_schemas: false}]\ntasks_dirs: [tasks]\n"
)
BRAND = "name: brand\nkind: extract\nschema: {品牌: , 产地: }\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with a configuration as it is in git."""
    monkeypatch.setenv("REXSTREAM_MODEL__BUNDLE", str(write_bundle(tmp_path / "bundle")))
    here = tmp_path / "now"
    write(here)
    monkeypatch.chdir(here)
    return here


def write(folder: Path, brand: str = BRAND, worker: str = WORKER) -> None:
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    (folder / "tasks/brand.yaml").write_text(brand, encoding="utf-8")
    (folder / "worker.yaml").write_text(worker, encoding="utf-8")


def check(*options: str) -> Result:
    return CliRunner().invoke(cli, ["check", "--config", "worker.yaml", *options])


def changes(result: Result) -> dict[str, str]:
    return {change["task"]: change["what"] for change in json.loads(result.stdout)["changes"]}


def test_a_changed_type_is_said_beside_the_task_that_stays(folder: Path) -> None:
    """The operator reads which results get other ids and which edit it is."""
    write(folder.parent / "before", BRAND.replace("产地", "出产地"))
    result = check("--against", "../before/worker.yaml")
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if " on raw " in line]
    assert [line.split()[0] for line in lines] == ["warn", "ok"]
    assert "results of brand on raw" in lines[0]
    assert "type 出产地 looks renamed to 产地; all results on facts get other ids" in lines[0]
    assert "results of sentiment on raw  unchanged: fingerprint " in lines[1]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_earlier_commit_of_a_repository_is_the_old_one(folder: Path) -> None:
    """As the command's help shows: folders of the old file are those beside it, not those of today."""

    def git(*arguments: str) -> None:
        own = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *own, *arguments], cwd=folder, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "before")
    write(folder, BRAND + "threshold: 0.6\n")
    git("commit", "-am", "a threshold")
    git("worktree", "add", str(folder.parent / "before"), "HEAD~1")
    result = check("--against", str(folder.parent / "before/worker.yaml"), "--json", "--fail-on-change")
    assert changes(result) == {"brand": "re-identified", "sentiment": "unchanged"}
    assert result.exit_code == 1


def test_only_what_subscribers_must_know_of_fails(folder: Path) -> None:
    """A comment and a task more do not."""
    write(folder.parent / "before", "# brands\n" + BRAND, WORKER.replace(", sentiment", ""))
    result = check("--against", "../before/worker.yaml", "--fail-on-change", "--json")
    assert changes(result) == {"brand": "unchanged", "sentiment": "new"}
    assert result.exit_code == 0
    write(folder.parent / "before", worker=WORKER.replace("output: facts", "output: facts.v1"))
    result = check("--against", "../before/worker.yaml", "--fail-on-change", "--json")
    assert changes(result) == {"brand": "moved", "sentiment": "moved"}
    assert result.exit_code == 1


def test_an_old_configuration_that_cannot_be_read_is_no_unchanged_one(folder: Path) -> None:
    """A file alone, without the task files of then, is refused, and the way out is named."""
    (folder.parent / "old.yaml").write_text(WORKER, encoding="utf-8")
    result = check("--against", "../old.yaml")
    assert result.exit_code == 2
    assert "--against ../old.yaml cannot be loaded" in result.stderr
    assert f"{folder.parent}; give it with its task files" in result.stderr
    assert check("--against", "../none.yaml").exit_code == 2
    assert "--fail-on-change needs --against" in check("--fail-on-change").stderr


def produced(
    bootstrap: str, task: str, fingerprint: str | None, identifier: str = "", topic: str = "facts", **value: Any
) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [
        ("rexstream-task", task.encode()),
        ("rexstream-result-id", identifier.encode()),
    ]
    if fingerprint is not None:
        headers.append(("rexstream-task-fingerprint", fingerprint.encode()))
    producer.produce(topic, json.dumps(value).encode(), headers=headers)
    assert producer.flush(10) == 0


@pytest.mark.broker
@pytest.mark.usefixtures("folder")
def test_the_last_results_say_what_a_start_changes() -> None:
    """Without the old file: by their headers, and by the id of a release that had no such header."""
    server = StubServer()
    loaded = load("worker.yaml", {})
    brand, sentiment = (loaded.tasks[name] for name in ("brand", "sentiment"))
    with EmbeddedBroker(topics={"raw": 2, "facts": 2, "reviews.dead": 2}) as broker:
        at = broker.bootstrap_servers
        config = load("worker.yaml", {}, (f"kafka.bootstrap_servers={at}",)).config
        assert list(last_result_findings(config, loaded.tasks)) == []
        produced(at, "brand", brand.fingerprint)
        produced(at, "brand", "0123456789abcdef")
        produced(at, "nobody's", "0123456789abcdef")
        produced(at, "sentiment", None, result_id("e-1", sentiment), event_id="e-1")
        result = check(
            "--connect", "--json", "--set", f"kafka.bootstrap_servers={at}", "--set", f"model.target={server.target}"
        )
        assert result.exit_code == 0
        found = {row["subject"]: row for row in json.loads(result.stdout)["findings"]}
        assert found["last result of brand on facts"]["status"] == "warn"
        assert "has fingerprint 0123456789abcdef" in found["last result of brand on facts"]["detail"]
        assert f"makes {brand.fingerprint}" in found["last result of brand on facts"]["detail"]
        same = f"has the fingerprint of today's definition, {sentiment.fingerprint}"
        assert same in found["last result of sentiment on facts"]["detail"]
        produced(at, "sentiment", None, "of another definition", event_id="e-1")
        detail = {each.subject: each.detail for each in last_result_findings(config, loaded.tasks)}
        assert detail["last result of sentiment on facts"].startswith("does not say its fingerprint")
        produced(at, "brand", brand.fingerprint)
        detail = {each.subject: each.detail for each in last_result_findings(config, loaded.tasks)}
        assert detail["last result of brand on facts"].startswith("has the fingerprint of today's definition")
    server.stop()


@pytest.mark.broker
def test_a_topic_that_may_not_be_read_hides_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights are given topic by topic."""
    write(folder, worker=WORKER.replace("facts", "'{task}'"))
    loaded = load("worker.yaml", {})
    read = change_findings._last_results

    def refused(reader: Reader, topic: str) -> dict[str, Any]:
        if topic == "brand":
            raise TopicUnusable("topic brand cannot be read: denied")
        return read(reader, topic)

    monkeypatch.setattr(change_findings, "_last_results", refused)
    with EmbeddedBroker(topics={"brand": 1, "sentiment": 1}) as broker:
        produced(broker.bootstrap_servers, "sentiment", "0123456789abcdef", topic="sentiment")
        config = load("worker.yaml", {}, (f"kafka.bootstrap_servers={broker.bootstrap_servers}",)).config
        denied, found = last_result_findings(config, loaded.tasks)
    assert (denied.subject, denied.detail) == ("last results on brand", "not known: topic brand cannot be read: denied")
    assert found.subject == "last result of sentiment on sentiment"
