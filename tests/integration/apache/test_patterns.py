"""An input that is a pattern on a real Kafka, whose brokers match it themselves in groups of KIP-848's protocol."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from chaos.topics import Topics
from confluent_kafka.admin import AdminClient
from worker_run import Run, reviews

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stub_server import StubServer

CLASSIC = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "topic.metadata.refresh.interval.ms": 300}
BROKERS = {"group.protocol": "consumer", "topic.metadata.refresh.interval.ms": 300}


@pytest.mark.parametrize(("mode", "client"), [("exactly_once", CLASSIC), ("at_least_once", BROKERS)])
def test_a_topic_is_read_once_whoever_matches_it(
    mode: str,
    client: dict[str, object],
    apache_kafka: str,
    new_topic: Callable[..., str],
    server: StubServer,
    tmp_path: Path,
) -> None:
    """From its first record, also when it is made after the start or named by a route as well; nothing else is read.

    One that is deleted stays away, although brokers here make topics that a producer asks for. Brokers look for new
    topics every ten seconds at most, so theirs is there before.
    """
    shop = f"shop{uuid.uuid4().hex[:8]}"
    first, named, late = (f"{shop}.{name}.reviews" for name in ("a", "named", "late"))
    pattern, output, dead = rf"^{shop}\.(a|[b-z]ate|named)\.reviews$", new_topic("out"), new_topic("dead")
    topics = Topics(apache_kafka)
    others = (f"{first}.old", f"my{first}")
    for name in (first, named, *others, *((late,) if client is BROKERS else ())):
        topics.create(name, 2)
    run = Run(
        apache_kafka,
        (pattern, output, dead),
        server,
        tmp_path,
        routes=[{"input": each, "tasks": ["sentiment"], "output": output} for each in (pattern, named)],
        kafka={"client": client},
        delivery={"mode": mode},
    )
    run.start()
    try:
        for name in (first, named, *others):
            run.send(reviews(20), name)
        run.wait(lambda: len(run.results()) >= 40)
        if client is CLASSIC:
            topics.create(late, 2)
        run.send(reviews(20), late)
        run.wait(lambda: len(run.results()) >= 60)
        run.wait(lambda: run.lag(first) + run.lag(named) + run.lag(late) == 0)
        found = sorted((result["record"]["topic"], result["event_id"]) for result in run.results())
        assert found == sorted((name, f"e{i}") for name in (first, named, late) for i in range(20))
        assert run.dead_letters() == []
        if client is CLASSIC:
            admin = AdminClient({"bootstrap.servers": apache_kafka})
            admin.delete_topics([late])[late].result(30)
            run.wait(lambda: late not in {each["topic"] for each in run.get("/status")[1]["assignment"]})
            run.send(reviews(20, 20), first)
            run.wait(lambda: len(run.results()) >= 80)
            assert late not in admin.list_topics(timeout=10).topics, "a client of ours has made it again"
        assert run.end() == 0
    finally:
        run.kill()
