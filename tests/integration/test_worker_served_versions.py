"""Versions as TensorFlow Serving has them, under ``rexstream run`` as a process and load: labels, policies, gaps.

Two tokenizers, one server or two. Whatever is loaded, unloaded, labelled or restarted: each review has each of its
results once, nothing is a dead letter, and a result holds what its version alone finds.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from served_versions import NAME, ServedVersions
from stub_model import TOKENIZER_JSON
from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER, facts_alone
from worker_run import TEXTS, Run, expected, ids, reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    class Broker(Protocol):
        """The fixture ``mock_broker``."""

        bootstrap: str

        def topic(self, partitions: int, label: str = ...) -> str:
            """A new topic; its name."""


TOKENIZERS = {1: TOKENIZER_JSON, 2: ANOTHER_TOKENIZER}
FALLBACK = "the canary fell back: the stable version answers all events"


class System:
    """A worker before one model server or two, and reviews that arrive all the time once it consumes."""

    def __init__(self, run: Run, servers: list[ServedVersions]) -> None:
        self.run, self.servers = run, servers
        self.sent = 0
        self._ends = threading.Event()
        self._load = threading.Thread(target=self._send)

    def start(self) -> None:
        """Returns when version 1 has answered."""
        self.run.start()
        self._load.start()
        self.answered_by("1")

    def _send(self) -> None:
        while not self._ends.wait(0.1):
            self.run.send(reviews(5, self.sent))
            self.sent += 5

    def answered_by(self, version: str) -> None:
        """Wait for more results of this version."""
        before = self._versions()[version]
        self.run.wait(lambda: self._versions()[version] >= before + 20)

    def _versions(self) -> Counter[str]:
        return Counter(result["model"]["version"] for result in self.run.results())

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.run.lines() if line["event"] == event]

    def paused(self) -> list[str]:
        return list(self.run.get("/status")[1]["paused"])

    def audit(self) -> None:
        """End the load, and look at every record."""
        self.end()
        self.run.wait_for_results(2 * self.sent)
        results = self.run.results()
        assert ids(results) == expected(self.sent)
        assert self.run.dead_letters() == []
        self.run.wait(lambda: self.run.lag() == 0)
        for result in results:
            number, version = int(result["event_id"][1:]), int(result["model"]["version"])
            text = f"{TEXTS[number % len(TEXTS)]}{number}"
            alone = facts_alone(text, result["task"], version, TOKENIZERS[version])
            found = [[(fact["type"], fact["span"]) for fact in path] for path in result["extractions"]]
            assert found == [[(fact.type, fact.span) for fact in path] for path in alone.paths]

    def end(self) -> None:
        self._ends.set()
        if self._load.is_alive():
            self._load.join()


@pytest.fixture
def system(mock_broker: Broker, tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Makes one: ``labels`` of each server, keys of ``model``, and what else a server is told. A bundle of each
    tokenizer is configured.
    """
    made: list[System] = []

    def make(labels: list[dict[str, int]], model: dict[str, Any], **told: Any) -> System:
        servers = [
            ServedVersions(tmp_path / f"models-{n}", TOKENIZERS, its, tensor_content=n > 0, allows_unused=True, **told)
            for n, its in enumerate(labels)
        ]
        for server in servers:
            server.seconds = {1: 0.01, 2: 0.01}
        topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
        run = Run(mock_broker.bootstrap, topics, servers[0], tmp_path)  # type: ignore[arg-type]
        config = yaml.safe_load(run.config_file.read_text())
        target = servers[0].target if len(servers) == 1 else "ipv4:" + ",".join(each.target for each in servers)
        bundles = [str(write_bundle(tmp_path / "another", ANOTHER_TOKENIZER))]
        config["model"] |= {"target": target, "name": NAME, "bundles": bundles, **model}
        config["batching"] = {"cost": {"fixed_seconds": 0.01}}  # or each test measures for two seconds
        run.config_file.write_text(yaml.safe_dump(config))
        made.append(System(run, servers))
        return made[-1]

    yield make
    for each in made:
        each.end()
        each.run.kill()
        for server in each.servers:
            server.stop()


def test_versions_that_come_late_or_go_pause_or_fall_back(system: Callable[..., System]) -> None:
    """A restarted server has the canary's version before the stable one: consumption waits for that. The canary's is
    unloaded while it answers: its events are the stable version's.
    """
    it = system([{"stable": 1, "canary": 2}], {"label": "stable", "canary": {"label": "canary", "share": 0.5}})
    (server,) = it.servers
    it.start()
    it.answered_by("2")
    server.stop()
    server.take_away(1)
    server.start()
    it.run.wait(lambda: it.paused() == ["deployment_fault"])
    server.write(1)
    it.answered_by("1")
    it.run.wait(lambda: it.paused() == [])
    server.breaks_off, server.seconds[2] = True, 0.1
    assert server.configure(specific={"versions": [1]}) == ""
    it.run.wait(lambda: any("Specific(stub, 2)" in line["detail"] for line in it.said(FALLBACK)))
    it.answered_by("1")
    it.audit()


def test_servers_of_two_releases_change_the_version_one_after_the_other_and_back(
    system: Callable[..., System],
) -> None:
    """2.17 and 2.19 answer in different encodings. They refuse calls beyond their few threads, tokens that a vocabulary
    lacks, and a label that comes before its version. Both bundles are in use meanwhile; nothing is paused.
    """
    it = system([{"stable": 1}, {"stable": 1}], {"label": "stable"}, threads=2)
    first, second = it.servers
    it.start()
    early = "FAILED_PRECONDITION: Request to assign label to version 3 of model stub, which is not currently available"
    assert first.configure({"stable": 3}).startswith(early)
    assert first.configure({"stable": 2}) == ""
    it.answered_by("2")
    it.answered_by("1")
    for server, version in ((second, 2), (first, 1), (second, 1)):
        assert server.configure({"stable": version}) == ""
        it.answered_by(str(version))
    it.audit()
    assert it.said("consumption paused") == []
