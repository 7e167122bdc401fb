"""Several bundles, and a canary, under ``rexstream run`` as a process: every result is of one version alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from stub_model import TOKENIZER_JSON
from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER, facts_alone
from worker_run import TEXTS, Run, expected, ids, reviews

from consumer.resilience.canary import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    from stub_server import StubServer

    class Broker(Protocol):
        """The fixture ``mock_broker``."""

        bootstrap: str

        def topic(self, partitions: int, label: str = ...) -> str:
            """A new topic; its name."""


FALLBACK = "the canary fell back: the stable version answers all events"


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Run]:
    """Not started. Version 1 has the usual tokenizer, version 2 another one; a bundle of each is configured."""
    server.versions_differ = True
    server.tokenizers[2] = ANOTHER_TOKENIZER
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    run = Run(mock_broker.bootstrap, topics, server, tmp_path)
    configure(run, bundles=[str(write_bundle(tmp_path / "another", ANOTHER_TOKENIZER))])
    yield run
    run.kill()


def configure(run: Run, **model: Any) -> None:
    """Write these keys of ``model`` into the configuration file."""
    config = yaml.safe_load(run.config_file.read_text())
    config["model"] |= model
    run.config_file.write_text(yaml.safe_dump(config))


def start(run: Run) -> None:
    run.start()
    run.wait(lambda: any(line["event"] == "consuming" for line in run.lines()))


def answered_by(run: Run) -> Counter[str]:
    return Counter(result["model"]["version"] for result in run.results())


def send_until(run: Run, sent: int, enough: Callable[[], bool]) -> int:
    """Send reviews from number ``sent`` on; how many were sent then."""
    while not enough():
        assert sent < 4000, run.lines()[-10:]
        run.send(reviews(10, sent))
        sent += 10
        time.sleep(0.1)
    return sent


def audit(run: Run, sent: int) -> None:
    """Every review has its result once, none is dead, and each holds what its version alone finds in it."""
    run.wait_for_results(2 * sent)
    results = run.results()
    assert ids(results) == expected(sent)
    assert run.dead_letters() == []
    run.wait(lambda: run.lag() == 0)
    for result in results:
        number, version = int(result["event_id"][1:]), int(result["model"]["version"])
        tokenizer = ANOTHER_TOKENIZER if version == 2 else TOKENIZER_JSON
        alone = facts_alone(f"{TEXTS[number % len(TEXTS)]}{number}", result["task"], version, tokenizer)
        found = [[(fact["type"], fact["span"]) for fact in path] for path in result["extractions"]]
        assert found == [[(fact.type, fact.span) for fact in path] for path in alone.paths]


def usable(run: Run) -> list[bool]:
    """Of every variant."""
    return [each["usable"] for each in run.get("/status")[1]["model"]["variants"]]


def said(run: Run, event: str) -> list[dict[str, Any]]:
    return [line for line in run.lines() if line["event"] == event]


def test_a_version_with_another_tokenizer_is_rolled_out_under_load_and_back(worker: Run, server: StubServer) -> None:
    """Without a pause and without an error line; the bundle in use is in the log and in /status."""
    start(worker)
    sent = send_until(worker, 0, lambda: answered_by(worker)["1"] > 40)
    server.version = 2
    sent = send_until(worker, sent, lambda: answered_by(worker)["2"] > 40)
    worker.wait(lambda: usable(worker) == [False, True])
    waits, _ = worker.get("/status")[1]["model"]["variants"]
    assert "bundle and served model do not belong together" in waits["reason"]
    back = answered_by(worker)["1"]
    server.version = 1
    sent = send_until(worker, sent, lambda: answered_by(worker)["1"] > back + 40)
    audit(worker, sent)
    assert [line["level"] for line in worker.lines() if line["level"] in ("error", "critical")] == []
    assert len(said(worker, "this bundle is in use")) == 3
    assert said(worker, "consumption paused") == []
    assert worker.get("/status")[1]["model"]["version"] == "1"


_LOOKING_OFTEN = """
import consumer.worker.bundle_watch as bundle_watch
bundle_watch.LOOK_SECONDS = 0.2
from consumer.cli import main
main()
"""


def test_a_bundle_that_comes_after_its_version_is_taken_in_without_a_restart(
    worker: Run, server: StubServer, tmp_path: Path
) -> None:
    """Under load, file by file: consumption is paused until it is whole, and nothing becomes a dead letter."""
    configure(worker, bundles=[f"{tmp_path}/models/*/bundle"])
    worker.program = [sys.executable, "-c", _LOOKING_OFTEN]
    start(worker)
    worker.wait(lambda: usable(worker) == [True])
    sent = send_until(worker, 0, lambda: answered_by(worker)["1"] > 40)
    server.version = 2
    sent = send_until(worker, sent, lambda: bool(said(worker, "consumption paused")))
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["deployment_fault"])
    folder = tmp_path / "models/2/bundle"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_bytes((tmp_path / "another/bundle.json").read_bytes())
    for end in (len(ANOTHER_TOKENIZER) // 2, None):
        sent = send_until(worker, sent, lambda end=end: len(said(worker, "a bundle cannot be used")) > (end is None))  # type: ignore[misc]
        (folder / "tokenizer.json").write_bytes(ANOTHER_TOKENIZER[:end])
    sent = send_until(worker, sent, lambda: answered_by(worker)["2"] > 40)
    audit(worker, sent)
    assert usable(worker) == [False, True]
    reasons = [line["reason"] for line in said(worker, "a bundle cannot be used")]
    assert ["cannot be read" in reasons[0], "has SHA-256" in reasons[1]] == [True, True]
    assert len(reasons) == 2
    assert [str(folder) in line["bundle"] for line in said(worker, "another bundle was found")] == [True]
    assert worker.process.poll() is None
    assert len(said(worker, "consuming")) == 1
    assert len(said(worker, "the model server can be used again")) == 1


def test_a_version_that_no_bundle_fits_pauses_and_names_them_all(worker: Run, server: StubServer) -> None:
    """Nothing becomes a dead letter; with a version that fits it goes on."""
    server.tokenizers[3] = TOKENIZER_JSON.replace(b'"max_input_chars_per_word": 100', b'"max_input_chars_per_word": 99')
    start(worker)
    sent = send_until(worker, 0, lambda: answered_by(worker)["1"] > 10)
    server.version = 3
    sent = send_until(worker, sent, lambda: bool(said(worker, "the model server cannot be used")))
    line = said(worker, "the model server cannot be used")[0]
    assert line["state"] == "deployment_fault"
    assert "/bundle (" in line["reason"]
    assert "/another (" in line["reason"]
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["deployment_fault"])
    server.version = 2
    worker.wait(lambda: worker.get("/status")[1]["paused"] == [])
    audit(worker, sent)


def canarys(sent: int, share: float) -> set[str]:
    """The reviews whose keys are in the canary's share."""
    values = [(key, json.loads(value)["event_id"]) for key, value in reviews(sent)]
    return {event for key, event in values if place_of(key.encode()) < share}


@pytest.fixture
def canary(worker: Run, server: StubServer) -> Run:
    """Version 1 is stable; version 2, with another tokenizer, is the canary, with a share of a half."""
    server.labels |= {"stable": 1, "canary": 2}
    configure(worker, label="stable", canary={"label": "canary", "share": 0.5})
    return worker


def test_a_canary_answers_its_keys_and_its_share_changes_without_a_restart(canary: Run) -> None:
    """All tasks of an event by one version, also where that has another tokenizer."""
    start(canary)
    canary.send(reviews(60))
    canary.wait_for_results(120)
    by = {(each["event_id"], each["model"]["version"]) for each in canary.results()}
    its = canarys(60, 0.5)
    assert 0 < len(its) < 60
    assert by == {(f"e{n}", "2" if f"e{n}" in its else "1") for n in range(60)}
    metrics, versions = canary.get("/metrics")[1], canary.get("/status")[1]["model"]["versions"]
    for version, events in (("1", 60 - len(its)), ("2", len(its))):
        counted = f'rexstream_model_results_total{{model="stub",task="sentiment",version="{version}"}} {events:.1f}'
        assert counted in metrics
    assert {(each["name"], each["version"], each["results"]) for each in versions} == {
        ("stub", "1", 2 * (60 - len(its))),
        ("stub", "2", 2 * len(its)),
    }
    for share, version in ((0.0, "1"), (1.0, "2")):
        command = ["sed", "-i", f"s/share: [0-9.]*/share: {share}/", str(canary.config_file)]  # as the runbook does
        subprocess.run(command, check=True)
        canary.wait(lambda share=share: f"rexstream_canary_share {share}" in canary.get("/metrics")[1])  # type: ignore[misc]
        before = len(canary.results()) // 2
        canary.send(reviews(20, before))
        canary.wait_for_results(2 * (before + 20))
        last = [each for each in canary.results() if int(each["event_id"][1:]) >= before]
        assert {each["model"]["version"] for each in last} == {version}
    audit(canary, 100)
    assert canary.get("/status")[1]["model"]["version"] == "1"
    assert canary.get("/status")[1]["model"]["canary"] == {"share": 1.0, "fallback": None, "detail": ""}


def test_a_canary_whose_label_is_removed_falls_back_loudly(canary: Run, server: StubServer) -> None:
    """Under load: its events are the stable version's at once, and nothing is paused."""
    start(canary)
    sent = send_until(canary, 0, lambda: answered_by(canary)["2"] > 20)
    del server.labels["canary"]
    sent = send_until(canary, sent, lambda: bool(said(canary, FALLBACK)))
    assert said(canary, FALLBACK)[0]["level"] == "error"
    assert said(canary, FALLBACK)[0]["reason"] == "unavailable"
    assert "Unrecognized servable version label: canary" in said(canary, FALLBACK)[0]["detail"]
    assert "change model.canary.label" in said(canary, FALLBACK)[0]["detail"]
    before = sent
    canary.send(reviews(40, sent))
    audit(canary, sent := sent + 40)
    last = [each for each in canary.results() if int(each["event_id"][1:]) >= before]
    assert {each["model"]["version"] for each in last} == {"1"}
    assert said(canary, "consumption paused") == []
    metrics = canary.get("/metrics")[1]
    assert "rexstream_canary_fallback 1.0" in metrics
    assert 'rexstream_canary_fallbacks_total{reason="unavailable"} 1.0' in metrics
    assert canary.get("/status")[1]["model"]["canary"]["fallback"] == "unavailable"


def test_a_slow_canary_falls_back(canary: Run, server: StubServer) -> None:
    """By itself, with the figures; until its share is changed it gets nothing."""
    server.seconds[2] = 0.1
    start(canary)
    sent = send_until(canary, 0, lambda: bool(said(canary, FALLBACK)))
    line = said(canary, FALLBACK)[0]
    assert line["reason"] == "slow"
    assert "times as long" in line["detail"]
    audit(canary, sent)


_IMPATIENT = """
import consumer.resilience.canary as canary
canary.HUNG_SECONDS = canary.COLD_SECONDS = 0.5
from consumer.cli import main
main()
"""


def test_a_canary_that_hangs_holds_its_events_for_a_moment_only(canary: Run, server: StubServer) -> None:
    """They are the stable version's long before the calls run out of time: each has its result once."""
    hung = threading.Event()

    def hang(request: Any, context: Any) -> None:
        # For as long as the caller waits: a thread of the server is not to be lost for ever.
        while hung.is_set() and request.model_spec.version_label == "canary" and context.is_active():
            time.sleep(0.02)

    server.before = hang
    canary.program = [sys.executable, "-c", _IMPATIENT]
    start(canary)
    sent = send_until(canary, 0, lambda: answered_by(canary)["2"] > 20)
    hung.set()
    began = time.monotonic()
    sent = send_until(canary, sent, lambda: bool(said(canary, FALLBACK)))
    assert said(canary, FALLBACK)[0]["reason"] == "unavailable"
    assert "is not answered after" in said(canary, FALLBACK)[0]["detail"]
    audit(canary, sent)
    assert time.monotonic() - began < 10  # the timeout of a call
    assert said(canary, "consumption paused") == []
    hung.clear()


def test_what_the_canary_refuses_is_answered_by_the_stable_version(canary: Run, server: StubServer) -> None:
    """No dead letter, and too many of them take its share away."""

    def refuse(request: Any, context: Any) -> None:
        import grpc

        tokens = request.inputs["input_ids"].tensor_shape.dim[1].size
        if request.model_spec.version_label == "canary" and tokens > 16:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an operation refuses this")

    server.before = refuse
    start(canary)
    sent = send_until(canary, 0, lambda: bool(said(canary, FALLBACK)))
    assert said(canary, FALLBACK)[0]["reason"] in ("refused", "unavailable")
    audit(canary, sent)
