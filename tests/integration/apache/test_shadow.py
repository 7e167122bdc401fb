"""``rexstream shadow`` on a real Apache Kafka: killed and started again, with an audit of every record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient
from killed_switch import KILLED_IN_ITS_SECOND_TRANSACTION, content
from stub_model import TOKENIZER_JSON
from stub_server import write_bundle
from worker_run import Run, reviews

from consumer.extraction.prompts import PromptLimits, contract_hash
from consumer.kafka.clients.cluster import Reader
from consumer.kafka.tools.reader import read_to_end
from consumer.kafka.tools.transactions import CHUNK_RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from confluent_kafka import Message
    from stub_server import StubServer


COUNT = 300


def _pair(message: Message) -> tuple[str, str]:
    result = json.loads(message.value() or b"")
    return result["event_id"], result["task"]


def _another_bundle(folder: Path) -> Path:
    """That of a model of which another graph, with another contract, is served."""
    file = write_bundle(folder) / "bundle.json"
    contract = contract_hash(TOKENIZER_JSON, PromptLimits(), 1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "cells_per_window": 1, "contract": contract}))
    return folder


def test_a_shadow_run_that_is_killed_goes_on_and_ends_at_the_same_place(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """Each record of the range has its results in the shadow, none after it has; live topics are as they were.

    A switch that is killed, with all but the commit of a transaction done, and run again publishes each result once.
    """
    topics = [new_topic(), new_topic(), new_topic(partitions=1)]
    worker = Run(apache_kafka, topics, server, tmp_path, delivery={"mode": "exactly_once"})
    worker.send(reviews(COUNT))
    base = [*worker.program, "shadow"]
    given = ["--config", str(worker.config_file), "--input", worker.input]
    shadow = f"{worker.output}.shadow"
    asked = [*base, "run", *given, "--from", "2020-01-01T00:00:00Z", "--share", "0.5"]
    switch = [*base, "switch", *given, "--yes"]

    def ended(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=worker.environment, capture_output=True, text=True, timeout=90, check=False)

    nothing = ended(*asked, "--until", "2019-12-31T00:00:00Z")
    assert nothing.returncode == 2
    assert "--from 2020-01-01T00:00:00Z is not before --until 2019-12-31T00:00:00Z" in nothing.stderr

    nothing = ended(*asked, "--until", "2999-12-31T00:00:00Z")
    assert nothing.returncode == 2
    assert "--until 2999-12-31T00:00:00Z has not come yet" in nothing.stderr

    slow = subprocess.Popen([*asked, "--rate", "60"], env=worker.environment, stderr=subprocess.DEVNULL)
    try:
        worker._process = slow
        worker.wait(lambda: len(worker.results(shadow)) >= 40)
    finally:
        slow.kill()
        slow.wait()
    before = len(worker.results(shadow))
    assert before < 2 * COUNT
    worker.send(reviews(50, COUNT))  # after the run began: no part of it

    refused = ended(*asked, "--set", "model.version=7")
    assert refused.returncode == 2
    assert "has begun a run with other model" in refused.stderr
    assert "rexstream shadow drop" in refused.stderr
    refused = ended(*asked, "--set", f"model.bundle={_another_bundle(tmp_path / 'another')}")
    assert refused.returncode == 2
    assert "has begun a run with other model" in refused.stderr

    assert "the run is not done: " in ended(*base, "diff", *given).stderr

    refused = ended(*switch)
    assert refused.returncode == 2
    # A member that was killed is one for a while.
    assert "has 1 members: wait for" in refused.stderr or f"of {COUNT} records: go on with its own" in refused.stderr

    # Two share what is left, and both end when all of it is done.
    beside = subprocess.Popen([*asked, "--rate", "60"], env=worker.environment, stderr=subprocess.DEVNULL)
    try:
        done = ended(*asked, "--rate", "60")
        assert done.returncode == 0, done.stderr
        assert beside.wait(30) == 0
    finally:
        beside.kill()
    assert f"{COUNT} of {COUNT} records are extracted again" in done.stderr
    again = ended(*asked)
    assert again.returncode == 0
    assert "consuming" not in again.stderr  # nothing is left, and no model server is waited for
    found = Counter((each["event_id"], each["task"]) for each in worker.results(shadow))
    assert found.keys() == {(f"e{i}", task) for i in range(COUNT) for task in ("product_features", "sentiment")}
    assert found.total() == len(found)
    assert len({each["result_id"] for each in worker.results(shadow)}) == len(found)
    assert worker.results() == []
    assert worker.dead_letters() == []

    # As a live worker would have written them, all but one event, and one of them otherwise.
    live = [each for each in worker.results(shadow) if each["event_id"] != "e0"]
    live[-1]["extractions"] = [[{"type": "else", "span": "x", "start": 0, "end": 1, "score": 0.9}]]
    worker.send([("k", json.dumps(each).encode()) for each in live], worker.output)
    compared = ended(*base, "diff", *given, "--json")
    assert (compared.returncode, compared.stderr) == (0, "")
    tasks = json.loads(compared.stdout)["tasks"].values()
    assert [sum(each[name] for each in tasks) for name in ("changed", "only_old", "only_new")] == [1, 0, 2]
    assert sum(each["same"] for each in tasks) == 2 * COUNT - 3
    assert json.loads(compared.stdout)["dead_letters"] == {"total": 0, "causes": []}
    assert ended(*base, "diff", *given, "--max-changed", "0.001").returncode == 1

    # Of one event the live workers have read a later record by now.
    newer = {**live[0], "record": {**live[0]["record"], "offset": 10**6}}
    worker.send([("k", json.dumps(newer).encode())], worker.output)
    expected = [each for each in read_to_end(apache_kafka, shadow) if _pair(each) != (newer["event_id"], newer["task"])]
    before = len(worker.results())
    tried = ended(*switch, "--dry-run")
    assert tried.stdout == f"{2 * COUNT - 1} results would be published\n", tried.stderr
    assert f"{2 * COUNT - 1} results of {shadow} to {worker.output}" in tried.stderr
    assert "1 left out: the live topic has a newer one" in tried.stderr
    killed = ended(sys.executable, "-c", KILLED_IN_ITS_SECOND_TRANSACTION, *switch[len(worker.program) :])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(worker.results()) == before + CHUNK_RECORDS < before + 2 * COUNT - 1
    for said in (" results published; ", "nothing is left to publish"):
        switched = ended(*switch)
        assert switched.returncode == 0, switched.stderr
        assert said in switched.stdout
    published = [each for each in read_to_end(apache_kafka, worker.output) if each.headers()]
    assert len(worker.results()) == before + len(published), "what was there before has no headers"
    assert sorted(map(content, published)) == sorted(map(content, expected))

    with Reader(apache_kafka) as reader:
        assert len(reader.partitions(shadow)) == 4

    dropped = ended(*base, "drop", *given, "--yes")
    assert dropped.returncode == 0, dropped.stderr
    assert shadow in dropped.stdout
    assert ended(*base, "drop", *given, "--yes").stdout == "there was nothing to delete\n"
    left = AdminClient({"bootstrap.servers": apache_kafka}).list_topics(timeout=10).topics
    assert shadow not in left
    assert worker.output in left
