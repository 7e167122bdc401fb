"""Dead letters replayed on a real Apache Kafka, where transactions are what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from stub_model import engine
from topic_audit import audit
from worker_run import Run, expected, ids, reviews

from consumer.cli import cli
from consumer.codecs.outputs import result_id
from consumer.config.names import marker_topic
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.events import SourceRecord
from consumer.kafka.tools.reader import headers_of, read_to_end
from consumer.kafka.tools.replay_markers import read_markers
from consumer.local.partition_budget import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result
    from confluent_kafka import Message
    from stub_server import StubServer


# Not long ago: brokers delete what is older than the topic's retention, by the timestamp that a letter keeps.
NOW = int(time.time() * 1000) - 1000
POISON_TEXT = "毒药评论"
TASKS = load_tasks()
LETTERS = 240
CONTROL = {"rexstream-event-id", "rexstream-only-tasks", "rexstream-dlq-replay-count", "rexstream-replay-group"}


@pytest.fixture
def topics(apache_kafka: str, new_topic: Callable[..., str]) -> Iterator[list[str]]:
    """Input, output, dead letters; the marker topic goes with them."""
    made = [new_topic(label, partitions=2) for label in ("in", "out", "dead")]
    yield made
    markers = marker_topic(made[2])
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    if markers in admin.list_topics(timeout=10).topics:
        admin.delete_topics([markers])[markers].result(30)


def arguments(bootstrap: str, dead: str, *others: str) -> list[str]:
    return [
        "dead-letters",
        "replay",
        "-b",
        bootstrap,
        "--timeout",
        "60",
        "--dead-letter-topic",
        dead,
        # The letters of these tests come from topics and a group that no configuration names.
        "--any-topic",
        "--group",
        "group",
        "--json",
        *others,
    ]


def replay(bootstrap: str, dead: str, *others: str) -> Result:
    return CliRunner().invoke(cli, arguments(bootstrap, dead, *others))


def replay_process(bootstrap: str, dead: str, *others: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "consumer", *arguments(bootstrap, dead, *others)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def summary(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def said(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers_of(message)}


def place(message: Message) -> str:
    return f"{message.topic()}-{message.partition()}-{message.offset()}"


def wait(until: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write_letters(bootstrap: str, topic: str, dead: str, sizes: list[int], **others: Any) -> None:
    """One letter of task sentiment for each size of value, as a worker would write them; ids end in their number."""
    letters = DeadLetters(dead, "group", "0", "spring")
    producer = Producer({"bootstrap.servers": bootstrap})
    for number, size in enumerate(sizes):
        value = json.dumps({"text": os.urandom(size).hex(), "event_id": f"e{number}"}).encode()
        record = SourceRecord(topic, number % 2, number, 1, b"k%d" % (number % 7), value, (), NOW - 5, 0.0)
        output = letters.of(record, Failure("extract", "Poison", "no answer", NOW, task="sentiment", **others), NOW)
        # Copies, as a restarted worker may leave them.
        for _ in range(1 + (number % 10 == 0)):
            producer.produce(
                dead, output.value, output.key, partition=number % 2, headers=list(output.headers), timestamp=NOW
            )
    assert producer.flush(30) == 0


def next_holder(bootstrap: str, dead: str) -> Producer:
    """A producer that has the transactional id of a replay.

    Once it has, every earlier transaction has ended and can be seen: the brokers answer a commit before they have
    written its markers into each partition, and a reader could come too early.
    """
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": f"rexstream-replay-{dead}", "linger.ms": 0}
    )
    producer.init_transactions(60)
    return producer


def replayed_events(bootstrap: str, topic: str, dead: str) -> Counter[str]:
    """Event id -> how many records a read_committed reader finds when every transaction has ended."""
    next_holder(bootstrap, dead)
    return Counter(json.loads(message.value() or b"")["event_id"] for message in read_to_end(bootstrap, topic))


def test_what_failed_is_replayed_once_its_cause_is_mended(
    apache_kafka: str, topics: list[str], server: StubServer, tmp_path: Path
) -> None:
    """Each event gets the results that it lacked under the ids that they would have had; what fails again is a new
    letter that has been replayed once more."""
    window = engine().start(POISON_TEXT, TASKS["sentiment"]).windows[0]
    # The text alone, without the marker that a task puts before it.
    needle = window.input_ids[window.text_start + 1 : window.length - 1].tobytes()

    def refuse(request: Any, context: grpc.ServicerContext) -> None:
        if needle in request.inputs["input_ids"].tensor_content:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "indices[0] = 9 is not in [0, 5)")

    server.before = refuse
    said_more = {"REXSTREAM_DEAD_LETTER__HEADERS": "spring", "REXSTREAM_DEAD_LETTER__STACK_TRACE": "true"}
    worker = Run(apache_kafka, topics, server, tmp_path, environment=said_more)
    options = ["--config", str(tmp_path / "config.yaml"), "--timeout", "60", "--json"]
    poison = [
        ("named", json.dumps({"event_id": "named", "text": POISON_TEXT}).encode()),
        ("unnamed", json.dumps({"text": POISON_TEXT, "tasks": ["sentiment"]}).encode()),
        ("inline", json.dumps({"event_id": "own", "text": POISON_TEXT, "schema": {"颜色": None}}).encode()),
    ]
    worker.start()
    try:
        worker.send([*reviews(60), *poison, ("broken", b"{"), *reviews(60, 60)])
        worker.wait_for_results(240)
        worker.wait(lambda: len(worker.dead_letters()) == 5)
        letters = {said(m)["rexstream-dlq-id"]: m for m in worker.dead_letters()}
        (unnamed,) = (said(m)["rexstream-dlq-id"] for m in letters.values() if m.key() == b"unnamed")
        (broken,) = (said(m)["rexstream-dlq-id"] for m in letters.values() if m.key() == b"broken")
        assert {said(m).get("rexstream-dlq-model-version") for m in letters.values()} == {"1", None}
        for letter in letters.values():
            headers = said(letter)
            assert headers["kafka_dlt-original-topic"] == topics[0]
            assert headers["kafka_dlt-exception-stacktrace"] == headers["rexstream-dlq-stack-trace"]

        server.before = lambda *_: None
        found = CliRunner().invoke(cli, ["dead-letters", "replay", *options])
        assert (found.exit_code, summary(found)["replayed"]) == (0, 5), found.output
        worker.wait_for_results(244)
        # The broken one fails again: nobody mended its value.
        worker.wait(lambda: len(worker.dead_letters()) == 6)
        worker.wait(lambda: worker.lag() == 0)
        again = CliRunner().invoke(cli, ["dead-letters", "list", *options])
        (row,) = (json.loads(line) for line in again.stdout.splitlines())
        assert row["class"] == "InvalidJson"
        assert row["replay_count"] == 1
        assert row["id"] != broken
        spared = CliRunner().invoke(cli, ["dead-letters", "replay", *options, "--max-replays", "1"])
        assert (summary(spared)["replayed"], summary(spared)["skipped"]) == (0, {"replayed_too_often": 1})
    finally:
        worker.kill()

    results = worker.results()
    late = [result for result in results if not result["event_id"].startswith("e")]
    default_id = unnamed.removesuffix("-sentiment")
    assert ids(results) == sorted(
        [
            *expected(120),
            ("named", "product_features"),
            ("named", "sentiment"),
            (default_id, "sentiment"),
            ("own", "inline"),
        ]
    )
    for result in late:
        if result["task"] != "inline":
            assert result["result_id"] == result_id(result["event_id"], TASKS[result["task"]])
    seen = audit(apache_kafka, topics[0], [topics[1]], topics[2])
    assert seen.clean, seen
    assert seen.inputs == 124 + 5
    again_in = {place(m): set(said(m)) for m in read_to_end(apache_kafka, topics[0]) if headers_of(m)}
    assert len(again_in) == 5
    assert set.union(*again_in.values()) == CONTROL
    assert row["id"] in again_in


def test_a_replay_killed_half_way_and_run_again_doubles_nothing(apache_kafka: str, topics: list[str]) -> None:
    """SIGKILL between and in transactions; the second run goes on with the rest."""
    source, _, dead = topics
    write_letters(apache_kafka, source, dead, [10] * LETTERS)
    process = replay_process(apache_kafka, dead, "--rate", "60")
    wait(lambda: len(read_markers(apache_kafka, dead, client={}, timeout=30).at_ms) >= 60, process)
    process.kill()
    process.communicate()
    before = sum(replayed_events(apache_kafka, source, dead).values())
    assert 60 <= before < LETTERS

    # One that is killed before its commit leaves this behind: records in the logs, and the transaction open.
    producer = next_holder(apache_kafka, dead)
    producer.begin_transaction()
    for topic, key in ((source, b"k"), (marker_topic(dead), f"{source}-1-{LETTERS - 1}-sentiment".encode())):
        producer.produce(topic, json.dumps({"event_id": f"e{LETTERS - 1}"}).encode(), key, partition=0)
    assert producer.flush(30) == 0

    found = replay(apache_kafka, dead)
    assert found.exit_code == 0, found.output
    assert summary(found)["replayed"] == LETTERS - before
    assert summary(found)["replayed_before"] == before
    assert replayed_events(apache_kafka, source, dead) == {f"e{number}": 1 for number in range(LETTERS)}
    assert len(read_markers(apache_kafka, dead, client={}, timeout=30).at_ms) == LETTERS
    for message in read_to_end(apache_kafka, source):
        assert {name for name, _ in headers_of(message)} == CONTROL
        assert message.timestamp()[1] > NOW
    assert summary(replay(apache_kafka, dead))["replayed"] == 0


def test_of_two_replays_at_once_the_second_takes_over(apache_kafka: str, topics: list[str]) -> None:
    """The first is fenced and ends with a code of its own; together they replayed each letter once."""
    source, _, dead = topics
    write_letters(apache_kafka, source, dead, [10] * LETTERS)
    first = replay_process(apache_kafka, dead, "--rate", "40")
    wait(lambda: len(read_markers(apache_kafka, dead, client={}, timeout=30).at_ms) >= 40, first)
    second = replay(apache_kafka, dead)
    assert second.exit_code == 0, second.output
    out, error = first.communicate(timeout=60)
    assert first.returncode == 4, error
    assert "another replay" in error
    assert json.loads(out)["replayed"] + summary(second)["replayed"] == LETTERS
    assert replayed_events(apache_kafka, source, dead) == {f"e{number}": 1 for number in range(LETTERS)}


def test_what_cannot_be_replayed_is_said_and_the_rest_is_replayed(
    apache_kafka: str, new_topic: Callable[..., str], topics: list[str]
) -> None:
    """A record that its topic refuses fails the command; one whose topic is gone or whose partition no longer fits does
    not."""
    dead = topics[2]
    small = new_topic("small", partitions=3, max_message_bytes="2000")
    write_letters(apache_kafka, small, dead, [10, 10, 2500, 10, 10])
    write_letters(apache_kafka, "gone", dead, [10])
    dry = replay(apache_kafka, dead, "--dry-run")
    assert (dry.exit_code, summary(dry)["replayable"]) == (0, 5)
    assert summary(dry)["skipped"] == {"topic_missing": 1}
    assert read_markers(apache_kafka, dead, client={}, timeout=30).at_ms == {}
    found = replay(apache_kafka, dead)
    assert found.exit_code == 1, found.output
    assert summary(found) == {
        "topic": dead,
        "dry_run": False,
        "replayed": 4,
        "replayable": None,
        "replayed_before": 0,
        "skipped": {"topic_missing": 1},
        "refused": 1,
    }
    assert f"{small}-0-2-sentiment not replayed" in found.stderr
    assert replayed_events(apache_kafka, small, dead) == {f"e{number}": 1 for number in (0, 1, 3, 4)}
    assert "gone" not in AdminClient({"bootstrap.servers": apache_kafka}).list_topics(timeout=10).topics
    # Three partitions against two of the dead-letter topic: the key decides, as every Java client does.
    assert {(m.key() or b"", m.partition()) for m in read_to_end(apache_kafka, small)} == {
        (key, partition_of(key, 3)) for key in (b"k0", b"k1", b"k3", b"k4")
    }


def test_a_name_without_a_topic_is_bad_usage_and_creates_nothing(apache_kafka: str) -> None:
    """A mistyped one would look like a topic without dead letters."""
    for command in (["list"], ["show", "x"], ["replay"], ["replay", "--dry-run"]):
        found = CliRunner().invoke(
            cli,
            ["dead-letters", *command, "-b", apache_kafka, "--timeout", "30", "--dead-letter-topic", "reviews.daed"],
        )
        assert found.exit_code == 2
        assert "'reviews.daed' does not exist" in found.stderr
    there = AdminClient({"bootstrap.servers": apache_kafka}).list_topics(timeout=10).topics
    assert not {"reviews.daed", marker_topic("reviews.daed")} & set(there)


def test_a_topic_that_cannot_be_used_holds_up_no_other(apache_kafka: str, topics: list[str]) -> None:
    """Headers may be forged: its letters are refused with the reason, the others are replayed."""
    source, _, dead = topics
    write_letters(apache_kafka, "no topic", dead, [10])
    write_letters(apache_kafka, "..", dead, [10])
    write_letters(apache_kafka, source, dead, [10, 10])
    found = replay(apache_kafka, dead)
    assert found.exit_code == 1, found.output
    assert (summary(found)["replayed"], summary(found)["refused"]) == (2, 2)
    assert "no topic-0-0-sentiment not replayed" in found.stderr


def test_the_marker_topic_is_compacted_and_no_other_will_do(apache_kafka: str, topics: list[str]) -> None:
    """Markers that go before their letters would let them be replayed twice."""
    source, _, dead = topics
    write_letters(apache_kafka, source, dead, [10])
    assert replay(apache_kafka, dead).exit_code == 0
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    resource = ConfigResource(ResourceType.TOPIC, marker_topic(dead))
    assert admin.describe_configs([resource])[resource].result(30)["cleanup.policy"].value == "compact"
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, marker_topic(dead), incremental_configs=[entry])
    admin.incremental_alter_configs([change])[change].result(30)
    found = replay(apache_kafka, dead)
    assert found.exit_code == 2
    assert "cleanup.policy=compact" in found.stderr


def test_forged_letters_and_counts_do_nothing_that_a_replay_would_not(
    apache_kafka: str, new_topic: Callable[..., str], topics: list[str], server: StubServer, tmp_path: Path
) -> None:
    """A letter that names another topic is left out; a count that no replay wrote is none; a real one holds."""
    elsewhere = new_topic("elsewhere", partitions=2)
    worker = Run(apache_kafka, topics, server, tmp_path)
    options = ["--config", str(tmp_path / "config.yaml"), "--timeout", "60", "--json"]

    def replayed(*others: str) -> dict[str, Any]:
        return summary(CliRunner().invoke(cli, ["dead-letters", "replay", *options, *others]))

    forged: Any = [
        ("rexstream-dlq-replay-count", b"999999"),
        ("rexstream-event-id", b"e"),
        ("rexstream-only-tasks", b"sentiment"),
        ("rexstream-replay-group", worker.group.encode()),
    ]
    letters = DeadLetters(topics[2], worker.group, "0")
    record = SourceRecord(elsewhere, 0, 7, 1, b"k", b"{}", (), NOW - 5, 0.0)
    letter = letters.of(record, Failure("extract", "Poison", "no", NOW, task="sentiment"), NOW)
    producer = Producer({"bootstrap.servers": apache_kafka})
    producer.produce(topics[2], letter.value, letter.key, headers=list(letter.headers))
    producer.produce(topics[0], b"{", b"k", headers=list(forged))
    producer.produce(topics[0], b"{", b"k", headers=forged[:1])
    assert producer.flush(30) == 0
    worker.start()
    try:
        worker.wait(lambda: len(worker.dead_letters()) == 3)
        for number in range(3):
            found = replayed()
            assert (found["replayed"], found["skipped"]) == (2, {"not_an_input": 1}), number
            count = 3 + 2 * (number + 1)
            worker.wait(lambda count=count: len(worker.dead_letters()) == count)  # type: ignore[misc]
        assert replayed()["skipped"] == {"not_an_input": 1, "replayed_too_often": 2}
        assert list(read_to_end(apache_kafka, elsewhere)) == []
        assert replayed("--any-topic", "--dry-run")["replayable"] == 1
        assert worker.end() == 0
    finally:
        worker.kill()


def test_two_groups_on_one_topic_replay_each_their_own_letters(
    apache_kafka: str, new_topic: Callable[..., str], topics: list[str], server: StubServer, tmp_path: Path
) -> None:
    """Also where both write to one dead-letter topic, letters with the same id among them."""
    short = {"REXSTREAM_LIMITS__TEXT_CHARS": "3"}
    names = {"sentiment": topics[1], "category": new_topic("other", partitions=2)}
    workers: dict[str, Run] = {}
    for task, output in names.items():
        folder = tmp_path / task
        folder.mkdir()
        group = f"{topics[0]}-{task}"
        routes = [{"input": topics[0], "tasks": [task], "output": output}]
        place = [topics[0], output, topics[2]]
        workers[task] = Run(
            apache_kafka, place, server, folder, routes=routes, kafka={"group_id": group}, environment=short
        )
        workers[task].group = group

    def replayed(task: str) -> tuple[int, dict[str, int]]:
        options = ["--config", str(tmp_path / task / "config.yaml"), "--timeout", "60", "--json"]
        found = summary(CliRunner().invoke(cli, ["dead-letters", "replay", *options]))
        return found["replayed"], found["skipped"]

    def outcomes(count: int) -> None:
        first.wait(lambda: len(first.dead_letters()) == count)
        first.wait(lambda: sum(worker.lag() for worker in workers.values()) == 0)

    first = workers["sentiment"]
    try:
        for worker in workers.values():
            worker.start()
        first.send([("k", b"{"), *reviews(10)])
        outcomes(22)
        for worker in workers.values():
            assert worker.end() == 0
            worker.environment.pop("REXSTREAM_LIMITS__TEXT_CHARS")
            worker.start()
        assert replayed("sentiment") == (11, {"other_group": 11})
        # What cannot be read fails again, once.
        outcomes(23)
        assert replayed("category") == (11, {"other_group": 1})
        outcomes(24)
        for task, worker in workers.items():
            worker.wait(lambda worker=worker: len(worker.results()) == 10)  # type: ignore[misc]
            assert ids(worker.results()) == sorted((f"e{number}", task) for number in range(10))
            assert worker.end() == 0
    finally:
        for worker in workers.values():
            worker.kill()
