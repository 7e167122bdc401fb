"""The runbooks of docs/runbooks run as they stand there, in their order, while reviews arrive.

One exported model, the local model server and the embedded broker, with one worker. Addresses are exchanged. What
TensorFlow Serving does by itself, to read ``models.config`` again, is done here after each edit of that file.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import yaml
from checkout import Place, checkout
from google.protobuf import text_format
from house.documents import ROOT, blocks, commands

from consumer.config.task_files import load_tasks
from consumer.kafka.tools.reader import read_to_end
from consumer.serving.descriptors import GET_MODEL_STATUS, HANDLE_RELOAD_CONFIG

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.model, pytest.mark.broker, pytest.mark.timeout(600)]

RUNBOOKS = ROOT / "docs/runbooks"
REVIEWS = 20
AVAILABLE = 30
"""ModelVersionStatus.State of TensorFlow Serving."""
FEATURES = (
    "name: features\nkind: extract\nimplicit_aspect: '#'\nschema: {属性词: {正向情感(情感词): , 负向情感(情感词): }}\n"
)


def shown(name: str) -> list[str]:
    """The commands of a page that are rexstream's, an editor's and git's, in order."""
    return [command for block in blocks(RUNBOOKS / name) if block.language == "sh" for command in commands(block)]


def wait(until: Callable[[], bool], seconds: float = 90) -> None:
    """Until it is so. What it asks answers within milliseconds and cannot be awaited."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class System(NamedTuple):
    """All that runs, in one folder."""

    place: Place
    broker: str
    server: str
    started: list[subprocess.Popen[str]]

    def worker(self) -> subprocess.Popen[str]:
        """A worker that has joined."""
        log = self.place.folder / f"worker-{len(self.started)}"
        self.started.append(self.place.start("rexstream run --config worker.yaml", log))
        process = self.started[-1]
        wait(lambda: process.poll() is not None or '"address"' in log.read_text())
        (address,) = re.findall(r'"address": ?"([^"]+)"', log.read_text())
        (self.place.folder / "address").write_text(address)
        return process

    def run(self, command: str) -> str:
        """A command of a page; afterwards the model server has the list of models that it edited, if it did."""
        if command.startswith("rexstream status"):  # the embedded broker does not describe groups
            command = f"{command} --http {(self.place.folder / 'address').read_text()}"
        printed = self.place.run(command.replace("localhost:8500", self.server))
        if command.startswith("sed "):
            self.reload()
        return printed

    def call(self, method: Any, request: Any) -> Any:
        """What the model server answers."""
        with grpc.insecure_channel(self.server, options=[("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
            return call(request, timeout=60)

    def reload(self) -> None:
        """``models.config`` as the server's list."""
        request = HANDLE_RELOAD_CONFIG.request()
        text_format.Parse((self.place.folder / "models.config").read_text(), request.config)
        request.config.model_config_list.config[0].base_path = str(self.place.folder / "models/rexuninlu")
        answer = self.call(HANDLE_RELOAD_CONFIG, request)
        assert answer.status.error_code == 0, answer.status.error_message

    def versions(self) -> set[int]:
        """Versions of the model that the server has loaded."""
        request = GET_MODEL_STATUS.request()
        request.model_spec.name = "rexuninlu"
        answer = self.call(GET_MODEL_STATUS, request)
        return {each.version for each in answer.model_version_status if each.state == AVAILABLE}

    def arrive(self, sent: int) -> int:
        """Send REVIEWS more reviews; how many there are then."""
        self.place.run("rexstream send --config worker.yaml --input reviews.jsonl")
        return sent + REVIEWS

    def results(self) -> list[dict[str, Any]]:
        """All that are out."""
        return [json.loads(each.value() or b"") for each in read_to_end(self.broker, "reviews.extracted")]

    def wait_for_results(self, count: int) -> None:
        """Until as many are out."""
        wait(lambda: len(self.results()) >= count)

    def end(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Version 1 of the demo model is served as ``stable`` and ``canary``; version 2 lies beside the models' folder."""
    if find_spec("tensorflow") is None:  # not imported: that takes three seconds
        pytest.skip("TensorFlow is not installed")
    folder = tmp_path_factory.mktemp("operator") / "checkout"
    folder.mkdir()
    place = checkout(folder)
    (place.folder / "checkpoint").symlink_to(ROOT / "deploy/demo-model")
    export = next(command for command in shown("hot-swap.md") if command.startswith("rexstream export"))
    place.run(f"{export} --max-tokens 512")
    models = place.folder / "models/rexuninlu"
    shutil.copytree(models / "2", models / "1")
    (models / "2").rename(place.folder / "exported")
    shutil.copy(ROOT / "deploy/tf-serving/models.config", place.folder)
    started: list[subprocess.Popen[str]] = []
    try:
        started.append(
            place.start("rexstream serve --models models --port 0 --poll-seconds 0.1 --json", place.folder / "serve")
        )
        topics = " ".join(f"--topic reviews.{name}:2" for name in ("raw", "extracted", "dead"))
        started.append(place.start(f"rexstream broker --port 0 {topics}", place.folder / "broker"))
        server, broker = (process.stdout.readline().strip() for process in started if process.stdout is not None)
        system = System(place, broker, json.loads(server)["address"], started)
        system.reload()
        samples = (ROOT / "schemas/samples/reviews.jsonl").read_text("utf-8").splitlines(keepends=True)
        (place.folder / "reviews.jsonl").write_text("".join(samples[:REVIEWS]), "utf-8")
        write(place.folder, system, ["product_features"])
        yield system
    finally:
        for process in started:
            process.kill()
            process.wait()


def write(folder: Path, system: System, tasks: list[str]) -> None:
    """``worker.yaml`` beside its task files."""
    (folder / "tasks").mkdir(exist_ok=True)
    if not (folder / "tasks/features.yaml").exists():
        (folder / "tasks/features.yaml").write_text(FEATURES, "utf-8")
    (folder / "worker.yaml").write_text(
        yaml.safe_dump(
            {
                "kafka": {"bootstrap_servers": system.broker, "client": {"session.timeout.ms": 6000}},
                "routes": [{"input": "reviews.raw", "tasks": tasks, "output": "reviews.extracted"}],
                "model": {
                    "target": system.server,
                    "name": "rexuninlu",
                    "label": "stable",
                    "bundle": "models/rexuninlu/1/bundle",
                },
                "delivery": {"dead_letter_topic": "reviews.dead"},
                "observability": {"http": "127.0.0.1:0"},
                "tasks_dirs": ["tasks"],
            }
        )
    )


def test_a_hot_swap_and_the_way_back(system: System) -> None:
    """Reviews arrive as labels move: each has one result, none is a dead letter. Compared beside it."""
    folder = system.place.folder
    worker = system.worker()
    tailed, sent = "", 0
    for command in shown("hot-swap.md"):
        if command.startswith("rexstream export"):
            (folder / "exported").rename(folder / "models/rexuninlu/2")
            wait(lambda: 2 in system.versions())
            continue
        if command.startswith("sed"):
            sent = system.arrive(sent)
        if command.startswith("rexstream tail"):
            system.wait_for_results(sent)
            sent = system.arrive(sent)
            system.wait_for_results(sent)
            tailed = system.run(f"{command} --from beginning")
            newest = sorted(system.results(), key=lambda each: int(each["processed_at"]))[-REVIEWS:]
            assert {each["model"]["version"] for each in newest} == {"2"}
            continue
        printed = system.run(command)
        if command.startswith("rexstream check"):
            assert "model answers" in printed
        if command.startswith("sed") and "canary" in command:
            for comparison in shown("compare.md"):
                assert "Agreement" in system.run(comparison)
    assert len(tailed.splitlines()) == 3
    sent = system.arrive(sent)
    system.wait_for_results(sent)
    results = sorted(system.results(), key=lambda each: int(each["processed_at"]))
    assert len(results) == sent
    assert len({(each["record"]["partition"], each["record"]["offset"]) for each in results}) == sent
    assert {each["model"]["version"] for each in results[-REVIEWS:]} == {"1"}
    assert list(read_to_end(system.broker, "reviews.dead")) == []
    system.end(worker)


@pytest.mark.skipif(shutil.which("git") is None, reason="the page's first command is git's")
def test_a_changed_task_and_another_release(system: System) -> None:
    """In place and side by side: what check says beforehand is what the results then have."""
    folder = system.place.folder
    git = "git -c user.name=t -c user.email=t@example.org"
    write(folder, system, ["features"])
    before = load_tasks([folder / "tasks"])["features"]
    system.place.run(f"git init -q . && git add worker.yaml tasks && {git} commit -qm before")
    (folder / "tasks/features.yaml").write_text(FEATURES.replace("负向", "中性"), "utf-8")
    changed = FEATURES.replace("name: features", "name: features_v2") + "threshold: 0.6\n"
    (folder / "tasks/features_v2.yaml").write_text(changed, "utf-8")
    write(folder, system, ["features", "features_v2"])
    system.place.run(f"git add worker.yaml tasks && {git} commit -qm after")
    tasks = load_tasks([folder / "tasks"])
    worktree, against, compare, after, tail = shown("schema-change.md")

    system.run(worktree)
    said = system.run(against)
    assert re.search("warn +results of features on reviews.raw +re-identified: .*负向.* looks renamed to .*中性", said)
    assert re.search("ok +results of features_v2 on reviews.raw +new: fingerprint", said)
    assert before.fingerprint in said
    assert "Agreement" in system.run(compare)

    worker = system.worker()
    known = len(system.results())
    system.place.run("rexstream send --config worker.yaml --input reviews.jsonl")
    system.wait_for_results(known + 2 * REVIEWS)
    made = {
        (each["task"], each["task_fingerprint"]) for each in system.results() if each["task"].startswith("features")
    }
    assert made == {(name, tasks[name].fingerprint) for name in ("features", "features_v2")}
    last = [line for line in system.run(after).splitlines() if "last result of" in line]
    assert [("features_v2" in line, line.split()[0], "today's definition" in line) for line in last] == [
        (False, "ok", True),
        (True, "ok", True),
    ]
    tailed = system.place.start(tail.replace("--idle-timeout 60", "--from beginning"), folder / "tail")
    assert tailed.wait(60) == 0

    for command in shown("release.md"):
        assert system.run(command)
    system.end(worker)
