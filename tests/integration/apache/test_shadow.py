"""``rexstream shadow`` on a real Apache Kafka: killed and started again, with an audit of every record."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient
from worker_run import Run, reviews

from consumer.kafka.clients.cluster import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stub_server import StubServer

COUNT = 300


def test_a_shadow_run_that_is_killed_goes_on_and_ends_at_the_same_place(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """Each record of the range has its results in the shadow, none after it has; live topics are as they were."""
    topics = [new_topic(), new_topic(), new_topic(partitions=1)]
    worker = Run(apache_kafka, topics, server, tmp_path, delivery={"mode": "exactly_once"})
    worker.send(reviews(COUNT))
    base = [*worker.program, "shadow"]
    given = ["--config", str(worker.config_file), "--input", worker.input]
    shadow = f"{worker.output}.shadow"
    asked = [*base, "run", *given, "--from", "2020-01-01T00:00:00Z", "--share", "0.5"]
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

    def ended(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=worker.environment, capture_output=True, text=True, timeout=90, check=False)

    refused = ended(*asked, "--set", "model.version=7")
    assert refused.returncode == 2
    assert "has begun a run with other model" in refused.stderr
    assert "rexstream shadow drop" in refused.stderr

    # Two share what is left, and both end when all of it is done.
    beside = subprocess.Popen([*asked, "--rate", "60"], env=worker.environment, stderr=subprocess.DEVNULL)
    try:
        done = ended(*asked, "--rate", "60")
        assert done.returncode == 0, done.stderr
        assert beside.wait(30) == 0
    finally:
        beside.kill()
    assert f"{COUNT} of {COUNT} records are extracted again" in done.stderr
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
    assert compared.returncode == 0, compared.stderr
    tasks = json.loads(compared.stdout)["tasks"].values()
    assert [sum(each[name] for each in tasks) for name in ("changed", "only_old", "only_new")] == [1, 0, 2]
    assert sum(each["same"] for each in tasks) == 2 * COUNT - 3
    assert ended(*base, "diff", *given, "--max-changed", "0.001").returncode == 1

    with Reader(apache_kafka) as reader:
        assert len(reader.partitions(shadow)) == 4

    dropped = ended(*base, "drop", *given, "--yes")
    assert dropped.returncode == 0, dropped.stderr
    assert shadow in dropped.stdout
    left = AdminClient({"bootstrap.servers": apache_kafka}).list_topics(timeout=10).topics
    assert shadow not in left
    assert worker.output in left
