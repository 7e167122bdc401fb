"""``rexstream run`` with routes whose outputs a real broker refuses: the others go on, in both modes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from apache_kafka import ApacheKafka
from chaos.topics import Topics
from click.testing import CliRunner
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from worker_run import Run, reviews

from consumer.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stub_server import StubServer

RULES = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
auto.create.topics.enable=false
"""
LABELS = ("missing", "forbidden", "good")
EVENTS = 1500


@pytest.fixture(scope="module")
def ruled_kafka(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A broker on which writing to a topic can be forbidden, and no topic comes by itself."""
    folder = tmp_path_factory.mktemp("kafka")
    broker = ApacheKafka(kafka_jars, folder)
    for settings in folder.glob("broker-*/server.properties"):
        with settings.open("a") as lines:
            lines.write(RULES)
    broker.start()
    yield broker
    broker.kill()


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
def test_outputs_that_the_broker_refuses_hold_up_only_what_feeds_them(
    mode: str, ruled_kafka: ApacheKafka, server: StubServer, tmp_path: Path
) -> None:
    """One is missing, to one nobody may write. The third route goes on and is committed; a drain waits for nothing.

    A successor goes on in the same way until all is mended.
    """
    bootstrap = ruled_kafka.bootstrap_servers
    topics = Topics(bootstrap)
    inputs = {label: f"{mode}-in-{label}" for label in LABELS}
    outputs = {label: f"{mode}-out-{label}" for label in LABELS}
    dead = f"{mode}-dead"
    for topic in (*inputs.values(), *outputs.values(), dead):
        if topic != outputs["missing"]:
            topics.create(topic, 2)
    topics.forbid_writing(outputs["forbidden"])
    routes = [{"input": inputs[label], "tasks": ["sentiment"], "output": outputs[label]} for label in LABELS]
    run = Run(
        bootstrap,
        (inputs["good"], outputs["good"], dead),
        server,
        tmp_path,
        routes=routes,
        delivery={"mode": mode, "transaction_timeout_ms": 6000},
    )
    waiting = sorted(topic for label, topic in inputs.items() if label != "good")

    def output_pauses() -> Any:
        return run.get("/status")[1]["paused_topics"].get("output")

    try:
        for label in LABELS:
            if label != "good":
                run.send(reviews(EVENTS), inputs[label])
        run.start()
        run.wait(lambda: output_pauses() == waiting)
        sent = 0
        until = time.monotonic() + 10
        while time.monotonic() < until:
            run.send(reviews(50, sent))
            sent += 50
            run.wait(lambda: run.lag() == 0, 20)
            assert output_pauses() == waiting
        assert len(run.results()) == sent
        assert run.get("/readyz")[0] == 200
        started = time.monotonic()
        code = run.end()
        assert (code, time.monotonic() - started < 15) == (1, True)
        left = [line for line in run.lines() if "records are left that wait for outputs" in line["event"]]
        assert sorted(left[-1]["blocked_outputs"]) == sorted(out for label, out in outputs.items() if label != "good")
        assert [run.lag(topic) for topic in waiting] == [EVENTS] * len(waiting)

        run.start()
        run.send(reviews(50, sent))
        run.wait(lambda: run.lag() == 0)
        topics.create(outputs["missing"], 2)
        topics.allow_writing(outputs["forbidden"])
        run.wait(lambda: sum(map(run.lag, inputs.values())) == 0)
        for label, topic in outputs.items():
            found = [result["event_id"] for result in run.results(topic)]
            assert set(found) == {f"e{i}" for i in range(sent + 50 if label == "good" else EVENTS)}
            if mode == "exactly_once":
                assert len(found) == len(set(found))
        assert run.dead_letters() == []
        assert run.end() == 0
    finally:
        run.kill()


def test_a_login_that_may_not_list_the_members_is_told_which_right_it_lacks(ruled_kafka: ApacheKafka) -> None:
    """Exit code 3, and that workers can be named in place of it."""
    admin = AdminClient({"bootstrap.servers": ruled_kafka.bootstrap_servers})
    # A group with any rule refuses whatever no rule allows.
    rule = AclBinding(
        *(ResourceType.GROUP, "closed", ResourcePatternType.LITERAL, "User:other", "*"),
        *(AclOperation.READ, AclPermissionType.ALLOW),
    )
    for answer in admin.create_acls([rule]).values():
        answer.result(30)
    for command in ("status", "resume"):
        arguments = ["-b", ruled_kafka.bootstrap_servers, "--set", "kafka.group_id=closed"]
        found = CliRunner().invoke(cli, [command, *arguments])
        assert found.exit_code == 3, found.output
        assert "needs Describe on the group, which Read includes" in found.stderr
        assert "--http HOST:PORT" in found.stderr
