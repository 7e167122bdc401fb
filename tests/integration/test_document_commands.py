"""What README, docs/tasks.md, deploy/acceptance.md and the examples show runs as it stands there.

One export, one model server and one broker for all. Addresses are exchanged (a test takes free ports), and the demo
model takes the place of the published one. ``tests/unit/test_documents.py`` lists the commands that this cannot run.
"""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from checkout import Place, checkout
from house.documents import ROOT, blocks, commands
from house.task_examples import FILE, ask, examples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.model, pytest.mark.broker, pytest.mark.timeout(600)]

ACCEPTANCE = ROOT / "deploy" / "acceptance.md"
REVIEWS = 20  # of the hundred that the page sends
TASKS = 3


def shown(page: Path, beginning: str) -> str:
    """The page's first command that begins so."""
    found = [command for block in blocks(page) if block.language == "sh" for command in commands(block)]
    return next(command for command in found if command.startswith(beginning))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """``examples/own_model.sh`` exports, serves and asks the model, and leaves it there."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("checkout")
    place = checkout(folder)
    made = place.run(f"bash {ROOT}/examples/own_model.sh deploy/demo-model {folder}", 500)
    result = json.loads(made.splitlines()[-1])
    assert result["model"] == {"name": "reviews", "version": "1", "signature": "serving_default"}
    assert result["extractions"]
    (folder / "models").mkdir()
    (folder / "models/rexuninlu").symlink_to(folder / "reviews")
    (folder / "ee").mkdir()
    lines = (ROOT / "schemas/samples/product_features.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "ee/dev.json").write_text("".join(lines[:10]), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[str]:
    """Address of the model server."""
    process = place.start(shown(ACCEPTANCE, ".venv/bin/rexstream serve") + " --port 0 --json", place.folder / "serve")
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["models"] == {"rexuninlu": [1]}
        yield ready["address"]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def broker(place: Place) -> Iterator[str]:
    """Address of a broker with the topics."""
    command = shown(ACCEPTANCE, ".venv/bin/rexstream broker")
    assert command == shown(ROOT / "examples/README.md", ".venv/bin/rexstream broker")
    process = place.start(command + " --port 0", place.folder / "broker")
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readmes_review(name: str, place: Place, server: str) -> None:
    """The command prints what stands below it, which leaves fields out."""
    result = json.loads(place.run(f"{shown(ROOT / name, 'echo')} --server {server}"))
    (wanted,) = [json.loads(block.text) for block in blocks(ROOT / name) if block.language == "json"]
    for path in result["extractions"]:
        for fact in path:
            del fact["score"]
    assert {key: result[key] for key in wanted} == wanted


def test_the_configuration_of_a_cluster_is_checked_before_an_upgrade(place: Place) -> None:
    """The ConfigMap of the plain manifests, as kubectl would print it, with the model of this machine."""
    manifests = yaml.safe_load_all((ROOT / "deploy/kubernetes/rexstream.yaml").read_text(encoding="utf-8"))
    (data,) = [each["data"] for each in manifests if each["kind"] == "ConfigMap" and "worker.yaml" in each["data"]]
    (place.folder / "worker.yaml").write_text(data["worker.yaml"], encoding="utf-8")
    assert "ok " in place.run(shown(ROOT / "deploy/README.md", ".venv/bin/rexstream check"))


def test_the_own_task(place: Place, server: str) -> None:
    """Finds the complaint that its README speaks of."""
    result = json.loads(place.run(f"{shown(ROOT / 'examples/own_task/README.md', 'echo')} --server {server}"))
    assert any("太慢" in fact["span"] for path in result["extractions"] for fact in path)


def test_the_tasks_page_has_the_demo_models_answers(server: str) -> None:
    """Fact by fact; of the scores the second decimal may be another on another processor. `make docs` writes them."""
    shown_there = examples(FILE.read_text(encoding="utf-8"))
    for example, result in zip(shown_there, ask(shown_there, "--server", server), strict=True):
        assert len(result["extractions"]) == len(example.answer), example.title
        for path, written in zip(result["extractions"], example.answer, strict=True):
            for fact, there in zip(path, written, strict=True):
                assert fact == {**there, "score": pytest.approx(there["score"], abs=0.02)}, example.title


def test_the_acceptance_walk(place: Place, server: str, broker: str) -> None:
    """From the check to an audited run: what deploy/acceptance.md says to expect of any model."""
    (configuration,) = [block.text for block in blocks(ACCEPTANCE) if block.language == "yaml"]
    configuration = configuration.replace("localhost:9092", broker).replace("localhost:8500", server)
    assert "127.0.0.1:9464" in configuration
    (place.folder / "acceptance.yaml").write_text(configuration.replace(":9464", ":0"), encoding="utf-8")

    def says(beginning: str, change: tuple[str, str] = ("localhost:8500", server)) -> str:
        return place.run(shown(ACCEPTANCE, f".venv/bin/rexstream {beginning}").replace(*change))

    lines = says("check").splitlines()
    warnings = [line for line in lines if not line.startswith(("ok ", " "))]
    assert lines
    assert [line.split()[0] for line in warnings] == ["warn"]
    assert "embedded broker" in warnings[0]

    place.run(shown(ACCEPTANCE, "echo"))
    known = json.loads(says("extract --server"))
    (published,) = [json.loads(block.text) for block in blocks(ACCEPTANCE) if block.language == "json"]
    assert known.keys() == published.keys()
    keys = {key for path in published["output"] for fact in path for key in fact}
    assert all(fact.keys() == keys for path in known["output"] for fact in path)
    assert [fact["span"] for path in known["output"] for fact in path] == [
        "西班牙巴塞罗那"
    ]  # "it does", says the table

    figures: dict[str, Any] = dict(re.findall(r"^(\w+) +(\S+)$", says("evaluate --server"), re.MULTILINE))
    assert (figures["texts"], figures["failed"]) == ("10", "0")
    assert {"precision", "recall", "f1", "predicted", "gold", "correct"} <= figures.keys()

    worker = place.start(shown(ACCEPTANCE, ".venv/bin/rexstream run"), place.folder / "worker")
    try:
        says("send", ("--limit 100", f"--limit {REVIEWS}"))
        results = says("tail", ("--limit 300", f"--limit {REVIEWS * TASKS}")).splitlines()
        assert len(results) == REVIEWS * TASKS
        assert "0 dead letters in reviews.dead" in says("dead-letters list")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
