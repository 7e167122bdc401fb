"""``rexstream resume`` and ``rexstream status`` find a group's workers by what a real Kafka says of its members."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer
from worker_run import Run

from consumer.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result
    from stub_server import StubServer

CLASSIC = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
KIP_848 = {"group.protocol": "consumer"}
FLOODING = {
    "REXSTREAM_DELIVERY__DEAD_LETTER_RUN": "3",
    "REXSTREAM_DELIVERY__DEAD_LETTER_RATE": "null",
    "REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "600",
    # So that some of the records still wait in the topic when consumption pauses.
    "REXSTREAM_LIMITS__IN_FLIGHT_EVENTS": "2",
}


@pytest.fixture(params=[pytest.param(CLASSIC, id="classic"), pytest.param(KIP_848, id="kip-848")])
def workers(
    request: pytest.FixtureRequest,
    apache_kafka: str,
    new_topic: Callable[..., str],
    server: StubServer,
    tmp_path: Path,
) -> Iterator[list[Run]]:
    """Two workers of one group on this machine, on ports of their own."""
    topics = [new_topic(partitions=6), new_topic(), new_topic()]
    runs = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        kafka = {"client": request.param}
        runs.append(Run(apache_kafka, topics, server, folder, kafka=kafka, environment=FLOODING))
    try:
        for run in runs:
            run.start()
        yield runs
    finally:
        for run in runs:
            run.kill()


def run(worker: Run, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", str(worker.config_file)])


def status(worker: Run) -> Any:
    return json.loads(run(worker, "status", "--json").stdout)


def pauses(worker: Run) -> Any:
    return worker.get("/status")[1]["paused"]


def test_every_worker_of_the_group_is_found_and_resumed(workers: list[Run], apache_kafka: str) -> None:
    """By the ports in their client.ids. A member that is no worker is named; with it, not all were reached."""
    first, second = workers
    names = {each.get("/status")[1]["worker"] for each in workers}
    # Under KIP-848 partitions come one after another.
    first.wait(lambda: all(each.get("/status")[1]["assignment"] for each in workers) and status(first)["well"])
    found = status(first)
    assert {each["name"] for each in found["workers"]} == names
    assert (found["unreached"], found["problems"]) == ([], [])
    assert sorted(each for worker in found["workers"] for each in worker["partitions"]) == [
        [first.input, number] for number in range(6)
    ]

    # On every partition, so for both of them.
    bad = [(f"k{number}", b"{") for number in range(1500)]
    first.send(bad)
    first.wait(lambda: all("flood" in pauses(each) for each in workers))
    found = status(second)
    assert found["lag"] > 0
    assert {tuple(each["paused"]["flood"]) for each in found["workers"]} == {(first.input,)}
    resumed = run(first, "resume", "--json")
    assert resumed.exit_code == 0, resumed.output
    answers = [json.loads(line) for line in resumed.stdout.splitlines()]
    assert {each["worker"] for each in answers} == names
    assert [(each["state"], each["topics"]) for each in answers] == [("trial", [first.input])] * 2

    protocol = {"group.protocol": "consumer"} if found["group"]["protocol"] == "CONSUMER" else {}
    assert (found["group"]["protocol"] == "CONSUMER") == ("group.protocol" in first.config_file.read_text())
    strategy = {} if protocol else {"partition.assignment.strategy": "cooperative-sticky"}
    other = Consumer(
        {
            "bootstrap.servers": apache_kafka,
            "group.id": first.group,
            "client.id": "orders",
            "enable.auto.commit": False,
            **protocol,
            **strategy,
        }
    )
    try:
        other.subscribe([first.input])
        first.wait(lambda: other.poll(0.1) is not None or bool(other.assignment()))
        resumed = run(first, "resume")
        assert resumed.exit_code == 1
        assert "'orders'" in resumed.stderr
        assert "1 of 3 workers were not resumed" in resumed.stderr
        (unreached,) = status(first)["unreached"]
        assert unreached["client_id"] == "orders"
    finally:
        other.close()


def test_a_group_without_members_is_said_to_be_that(apache_kafka: str, new_topic: Callable[..., str]) -> None:
    """Exit code 1, with what to look at; its lag is shown all the same."""
    topic = new_topic(partitions=2)
    arguments = ["-b", apache_kafka, "--set", "kafka.group_id=nobody", "--set", f"routes.0.input={topic}"]
    for command in ("status", "resume"):
        found = CliRunner().invoke(cli, [command, *arguments])
        assert found.exit_code == 1
        assert "there is no group 'nobody': check kafka.group_id" in found.output
    found = CliRunner().invoke(cli, ["status", *arguments, "--json"])
    assert json.loads(found.stdout)["topics"][topic] == {"partitions": 2, "lag": 0, "unknown": 0, "unassigned": 2}
