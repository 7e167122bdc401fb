"""What the brokers hold of a shadow run, and when a run is not let begin or go on."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]
from worker_run import Run

from consumer.delivery.shadow_plan import ASKED, PlannedRange, marks
from consumer.events import Partition
from consumer.kafka.tools import topic_state
from consumer.kafka.tools.shadow_group import ShadowGroup, plan_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stub_server import StubServer


@pytest.fixture
def shadow(apache_kafka: str, group: str) -> Iterator[ShadowGroup]:
    found = ShadowGroup(apache_kafka, group, {}, 10.0)
    yield found
    found.close()


def _plan(topic: str) -> dict[Partition, PlannedRange]:
    return {Partition(topic, number): PlannedRange(0, 9, dict.fromkeys(ASKED, "")) for number in range(2)}


def test_a_shadow_topic_takes_the_results_of_one_run_only(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """Another input of the same output would be another run, with another model perhaps, in the same shadow topic."""
    first, second, output, dead = new_topic(), new_topic(), new_topic(), new_topic(partitions=1)
    routes = [{"input": each, "tasks": ["sentiment"], "output": output} for each in (first, second)]
    worker = Run(apache_kafka, [first, output, dead], server, tmp_path, routes=routes)

    def shadow(command: str, topic: str, *more: str) -> tuple[int, str]:
        asked = [*worker.program, "shadow", command, "--config", str(worker.config_file), "--input", topic, *more]
        ended = subprocess.run(asked, env=worker.environment, capture_output=True, text=True, timeout=60, check=False)
        return ended.returncode, ended.stderr

    begun = ShadowGroup(apache_kafka, f"{worker.group}.shadow", {}, 10.0)
    begun.begin(_plan(first))
    begun.close()
    code, said = shadow("run", second, "--from", "earliest", "--set", "model.version=1")
    assert code == 2
    assert f"has begun a run of {first}" in said

    code, said = shadow("drop", second, "--yes")
    assert code == 2
    assert f"also reads {first}" in said
    assert shadow("drop", first, "--yes") == (0, "")


def test_a_run_begins_only_where_its_topics_are_empty_and_goes_on_only_where_it_is_whole(
    apache_kafka: str, new_topic: Callable[..., str], shadow: ShadowGroup
) -> None:
    topic, output = new_topic(partitions=2), new_topic(partitions=1)
    plan = _plan(topic)
    assert shadow.beginning_refused([topic], [output, f"{output}.shadow"]) == ""
    assert shadow.begin(plan) == plan
    assert shadow.plan([topic]) == plan
    assert shadow.going_on_refused(plan, [output]) == ""
    assert f"'{output}.shadow' of the run" in shadow.going_on_refused(plan, [output, f"{output}.shadow"])
    assert f"has begun a run of {topic}" in shadow.beginning_refused([output], [])

    admin = AdminClient({"bootstrap.servers": apache_kafka})
    admin.delete_consumer_groups([shadow.group])[shadow.group].result(10)
    assert "forgotten how far" in shadow.going_on_refused(plan, [output])

    kept = plan_group(shadow.group)
    admin.delete_consumer_groups([kept])[kept].result(10)
    assert shadow.plan([topic]) == {}
    producer = Producer({"bootstrap.servers": apache_kafka})
    producer.produce(output, b"{}")
    assert producer.flush(10) == 0
    assert f"'{output}' has records already" in shadow.beginning_refused([topic], [output])


def test_of_two_processes_that_begin_at_the_same_time_both_have_the_same_plan(
    apache_kafka: str, new_topic: Callable[..., str], shadow: ShadowGroup, group: str
) -> None:
    """Each passes over what lies outside its plan, also where that is in the other's."""
    topic = new_topic(partitions=2)
    ends = _plan(topic), {place: each._replace(end=20) for place, each in _plan(topic).items()}
    second = ShadowGroup(apache_kafka, group, {}, 10.0)
    with ThreadPoolExecutor() as at_once:
        found = list(at_once.map(ShadowGroup.begin, (shadow, second), ends))
    assert found[0] == found[1] == shadow.plan([topic])
    assert shadow.begin(ends[0]) == found[0]  # one that comes later
    second.close()


def test_a_shadow_topic_takes_and_keeps_what_the_live_one_does(
    apache_kafka: str, new_topic: Callable[..., str], shadow: ShadowGroup
) -> None:
    """Not smaller results than it, which would become dead letters, nor for a shorter time."""
    topic = new_topic(partitions=3, max_message_bytes="5000000", retention_ms="-1")
    wanted = {f"{topic}.shadow": topic}
    assert shadow.ensure_topics(wanted) == list(wanted)
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    resource = ConfigResource(ConfigResource.Type.TOPIC, f"{topic}.shadow")
    found = admin.describe_configs([resource])[resource].result(10)
    assert (found["max.message.bytes"].value, found["retention.ms"].value) == ("5000000", "-1")
    assert shadow.ensure_topics(wanted) == []
    assert shadow.drop(wanted) == list(wanted)


def test_a_run_whose_shadow_topic_was_deleted_and_came_back_is_refused(
    apache_kafka: str, new_topic: Callable[..., str], shadow: ShadowGroup
) -> None:
    """Brokers create a topic again for whoever writes to it: the run would end well, without what the first one had."""
    topic, output = new_topic(partitions=2), new_topic(partitions=1)
    again = f"{output}.shadow"
    shadow.ensure_topics({again: output})
    noted = marks(shadow.ids([topic, again], all_of_them=True))
    plan = {place: each._replace(topics=noted) for place, each in _plan(topic).items()}
    assert shadow.begin(plan) == plan
    assert shadow.going_on_refused(plan, [again]) == ""
    assert shadow.replaced(plan, [again]) == []
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    admin.delete_topics([again])[again].result(10)
    assert "is gone" in shadow.going_on_refused(plan, [again])
    shadow.ensure_topics({again: output})
    shadow.ids([again], all_of_them=True)
    assert shadow.replaced(plan, [again]) == [again]
    assert f"'{again}' was deleted and created again" in shadow.going_on_refused(plan, [again])
    assert shadow.drop([again]) == [again, shadow.group, plan_group(shadow.group)]


def test_results_behind_an_open_transaction_are_known_to_be_there(
    apache_kafka: str, new_topic: Callable[..., str], shadow: ShadowGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads to the end would miss them, without a sign, until the brokers abort it."""
    monkeypatch.setattr(topic_state, "MARKED_SECONDS", 0.0)
    topic = new_topic(partitions=2)
    left = Producer({"bootstrap.servers": apache_kafka, "transactional.id": topic})
    left.init_transactions(10)
    left.begin_transaction()
    left.produce(topic, b"{}", partition=1)
    assert left.flush(10) == 0
    assert shadow.held_back([topic]) == [Partition(topic, 1)]
    left.abort_transaction(10)
    monkeypatch.setattr(topic_state, "MARKED_SECONDS", 20.0)
    assert shadow.held_back([topic]) == []
