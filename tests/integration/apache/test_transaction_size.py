"""exactly_once on a broker that writes too little for what is in hand, within a timeout scaled to 2 s."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from stub_server import StubServer
from topic_audit import audit
from worker_run import Run, expected, ids

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import ApacheKafka

TASKS = ["sentiment", "product_features"]
EVENTS = 240
SLOW = 400_000
"""Bytes a second: all results together are 7 MB, of which brokers let some pass at once."""


def test_a_backlog_too_large_for_the_transaction_timeout_gets_through(
    private_kafka: ApacheKafka, tmp_path: Path
) -> None:
    """In smaller transactions, by the same process, each result once; one of all records would be aborted for ever."""
    topics = ["in", "out", "dead"]
    admin = AdminClient({"bootstrap.servers": private_kafka.bootstrap_servers})
    for made in admin.create_topics([NewTopic(topic, 4, 1) for topic in topics]).values():
        made.result(30)
    server = StubServer()
    run = Run(
        private_kafka.bootstrap_servers,
        topics,
        server,
        tmp_path,
        delivery={"mode": "exactly_once", "transaction_timeout_ms": 2000, "transaction_records": 16 * EVENTS},
        kafka={"client": {"session.timeout.ms": 6000, "compression.type": "none"}},
    )
    try:
        wide = {"attributes": {"note": "x" * 15_000}}
        run.send(
            [
                (f"k{i % 7}", json.dumps({"event_id": f"e{i}", "text": f"好用{i}", **wide}).encode())
                for i in range(EVENTS)
            ]
        )
        private_kafka.limit_producers(SLOW)
        run.start()
        run.wait(lambda: bool(run.get("/status")[1]["assignment"]))
        run.wait(lambda: run.lag() == 0, 150)
        assert run.end() == 0
    finally:
        run.kill()
        server.stop()
    found = audit(private_kafka.bootstrap_servers, "in", ["out"], "dead", tasks=TASKS)
    assert found.clean, found
    assert ids(run.results()) == expected(EVENTS)
    assert found.dead_letters == {}
    smaller = [line for line in run.lines() if line["event"].startswith("a transaction did not get through")]
    assert smaller
    assert all(line["next_records"] < line["records"] for line in smaller)
