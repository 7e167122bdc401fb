"""What an event may ask for, where topics do not come into being by themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from worker_run import Run, reviews

from consumer.cli import cli
from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stub_server import StubServer


@pytest.fixture
def topics(apache_kafka: str, new_topic: Callable[..., str]) -> Iterator[list[str]]:
    """Input, results of inline schemas, dead letters, and results of sentiment, named as a template names them."""
    made = [new_topic(label, partitions=2) for label in ("in", "facts", "dead")]
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    of_task = f"{made[1]}.sentiment"
    admin.create_topics([NewTopic(of_task, 2, -1)])[of_task].result(30)
    yield [*made, of_task]
    admin.delete_topics([of_task])[of_task].result(30)


def test_no_event_blocks_a_worker_that_has_the_topics_which_check_asks_for(
    apache_kafka: str, topics: list[str], server: StubServer, tmp_path: Path
) -> None:
    """Each that an event can reach must be there: where events may name any task these are those of all tasks."""
    *named, of_task = topics
    routes = [{"input": named[0], "tasks": ["sentiment"], "output": f"{named[1]}.{{task}}"}]
    run = Run(apache_kafka, named, server, tmp_path, routes=routes)

    def missing(*settings: str) -> list[str]:
        arguments = ["check", "--config", str(tmp_path / "config.yaml"), "--connect", "--json"]
        done = CliRunner().invoke(cli, [*arguments, *(f"--set={setting}" for setting in settings)])
        found = json.loads(done.stdout)["findings"]
        failed = [row["subject"] for row in found if row["status"] == "fail"]
        assert done.exit_code == (3 if failed else 0)
        return failed

    assert missing() == []
    assert f"topic {named[1]}.ner" in missing("routes.0.event_tasks=any")
    assert missing("routes.0.output=gone.{task}") == ["topic gone.sentiment", "topic gone"]
    assert missing("routes.0.output=gone.{task}", "routes.0.inline_schemas=false") == ["topic gone.sentiment"]

    event = [("k", json.dumps({"text": "好用", "tasks": ["ner"]}).encode())]
    run.start()
    try:
        run.send([*event, *reviews(20), *event])
        run.wait(lambda: run.lag() == 0)
        assert run.get("/readyz")[0] == 200
        assert run.end() == 0
    finally:
        run.kill()
    classes = [dict(headers_of(letter))["rexstream-dlq-class"] for letter in run.dead_letters()]
    assert classes == [b"TaskNotAllowed"] * 2
    assert len(list(read_to_end(apache_kafka, of_task))) == 20
