"""The audit tells apart what can become of a record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from topic_audit import Audit, audit, command

from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.broker

INPUT, OUTPUT, DEAD = "reviews.raw", "reviews.extracted", "reviews.dead"


class Cluster:
    """Topics with one partition of input, to fill by hand."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.address = broker.bootstrap_servers
        self._producer = Producer({"bootstrap.servers": self.address})

    def records(self, *values: bytes | None, headers: list[tuple[str, str | bytes | None]] | None = None) -> None:
        for value in values:
            self._producer.produce(INPUT, value, headers=headers or [])

    def result(self, offset: int, task: str, result_id: str | None = None, topic: str = INPUT) -> None:
        record = {"topic": topic, "partition": 0, "offset": offset}
        value = {"result_id": result_id or f"{offset}-{task}", "task": task, "record": record, "extractions": []}
        self._producer.produce(OUTPUT, json.dumps(value).encode())

    def dead_letter(self, offset: int, task: str | None = None) -> None:
        headers = {
            "__dlq.errors.topic": INPUT,
            "__dlq.errors.partition": "0",
            "__dlq.errors.offset": str(offset),
            "rexstream-dlq-stage": "validate",
            "rexstream-dlq-class": "EmptyText",
            **({"rexstream-dlq-task": task} if task else {}),
        }
        self._producer.produce(DEAD, b"x", headers=[(name, value.encode()) for name, value in headers.items()])

    def audit(self, *tasks: str) -> Audit:
        assert self._producer.flush(10) == 0
        return audit(self.address, INPUT, [OUTPUT], DEAD, tasks=tasks, timeout=10)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with EmbeddedBroker(topics={INPUT: 1, OUTPUT: 2, DEAD: 1}) as broker:
        yield Cluster(broker)


def test_every_outcome_once_is_clean(cluster: Cluster) -> None:
    """A result per task, a dead letter beside a sibling's result, one for the whole record, and a null value."""
    cluster.records(b"0", b"1", b"2", None)
    for task in ("a", "b"):
        cluster.result(0, task)
    cluster.result(1, "a")
    cluster.dead_letter(1, "b")
    cluster.dead_letter(2)
    found = cluster.audit("a", "b")
    assert found.clean
    assert (found.inputs, found.null_values, found.answered) == (4, 1, 3)
    assert (found.results, found.dead_letters) == ({"a": 2, "b": 1}, {"validate/EmptyText": 2})


def test_a_replayed_record_owes_the_tasks_that_its_header_names(cluster: Cluster) -> None:
    """Its siblings' results came the first time."""
    for offset, only in enumerate((b"a", b"a", b"b", b"inline", b"inline")):
        cluster.records(b"x", headers=[("rexstream-only-tasks", only)])
        if offset in (0, 2, 3):
            cluster.result(offset, only.decode())
    found = cluster.audit("a", "b")
    assert found.missing == ("0-1 a", "0-4 *")
    assert found.answered == 3


def test_a_missing_task_is_named(cluster: Cluster) -> None:
    """The record and the task that it still owes."""
    cluster.records(b"0", b"1")
    cluster.result(0, "a")
    found = cluster.audit("a", "b")
    assert found.missing == ("0-0 b", "0-1 a", "0-1 b")
    assert (found.answered, found.complete) == (0, False)
    assert cluster.audit().missing == ("0-1 *",)


def test_copies_are_complete_but_not_clean(cluster: Cluster) -> None:
    """A redelivery's second result and second dead letter are duplicates; nothing is missing."""
    cluster.records(b"0", b"1")
    cluster.result(0, "a")
    cluster.result(0, "a")
    cluster.dead_letter(1)
    cluster.dead_letter(1)
    found = cluster.audit("a")
    assert (found.duplicates, found.complete, found.clean) == (2, True, False)


def test_an_event_id_that_the_input_holds_twice_is_no_duplicate(cluster: Cluster) -> None:
    """Equal result ids of different records are the input's doing."""
    cluster.records(b"same", b"same")
    cluster.result(0, "a", "id")
    cluster.result(1, "a", "id")
    found = cluster.audit("a")
    assert (found.shared_ids, found.duplicates, found.clean) == (1, 0, True)


def test_a_result_beside_a_dead_letter_is_a_contradiction(cluster: Cluster) -> None:
    """One task of one record ends one way only."""
    cluster.records(b"0", b"1")
    cluster.result(0, "a")
    cluster.dead_letter(0, "a")
    cluster.result(1, "a")
    cluster.dead_letter(1)
    found = cluster.audit("a")
    assert found.contradictions == ("0-0 a", "0-1 *")
    assert not found.clean


def test_outcomes_of_unknown_records_are_strangers(cluster: Cluster) -> None:
    """Of another topic, or of an offset that the input does not hold."""
    cluster.records(b"0")
    cluster.result(0, "a")
    cluster.result(0, "a", topic="another")
    cluster.dead_letter(99)
    found = cluster.audit("a")
    assert (found.strangers, found.complete, found.clean) == (2, True, False)


def test_data_that_the_broker_dropped_spoils_the_audit(cluster: Cluster) -> None:
    """What the embedded broker has lost is noticed, never passed over."""
    cluster.records(*(b"x" * 100_000 for _ in range(80)))
    found = cluster.audit()
    assert found.trimmed[f"{INPUT}-0"] > 0
    assert not found.complete


def test_the_command_fails_when_something_is_missing(cluster: Cluster) -> None:
    """Exit code 1, and the verdict in words or JSON."""
    cluster.records(b"0")
    cluster.audit()
    result = CliRunner().invoke(command, ["-b", cluster.address])
    assert (result.exit_code, "INCOMPLETE" in result.output) == (1, True)
    cluster.result(0, "a")
    cluster.audit()
    result = CliRunner().invoke(command, ["-b", cluster.address, "--task", "a", "--exactly", "--json"])
    assert (result.exit_code, json.loads(result.output)["results"]) == (0, {"a": 1})
