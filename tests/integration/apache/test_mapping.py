"""Change events on Apache Kafka in exactly_once: a result and the delete of its row, each once, in order."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from topic_audit import audit
from worker_run import TEXTS, Run

from consumer.kafka.tools.reader import read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stub_server import StubServer


def change(op: str, number: int) -> bytes:
    row = None if op == "d" else {"id": number, "content": f"{TEXTS[number % len(TEXTS)]}{number}"}
    return json.dumps({"before": None, "after": row, "source": {"table": "reviews"}, "op": op}).encode()


def test_deletes_are_forwarded_exactly_once(
    apache_kafka: str, new_topic: Callable[..., str], server: StubServer, tmp_path: Path
) -> None:
    """The tombstone is in the transaction of its record: no reader sees it twice, or before the row's results, also
    when a worker takes over.
    """
    topics = [new_topic(partitions=2), new_topic(partitions=2, cleanup_policy="compact"), new_topic(partitions=1)]
    worker = Run(
        apache_kafka,
        topics,
        server,
        tmp_path,
        routes=[
            {
                "input": topics[0],
                "preset": "debezium",
                "on_delete": "forward",
                "fields": {"text": "content", "event_id": "id"},
                "tasks": ["sentiment"],
                "output": topics[1],
            }
        ],
        delivery={"mode": "exactly_once"},
    )
    sent: list[tuple[str, bytes | None]] = []
    for number in range(60):
        sent += [(f"k{number}", change("c", number)), (f"k{number}", change("d", number)), (f"k{number}", None)]
    worker.start()
    try:
        worker.send(sent[:90])
        worker.wait(lambda: len(list(read_to_end(apache_kafka, topics[1]))) > 0)
        worker.send(sent[90:])
        assert worker.signal(signal.SIGTERM) == 0
        worker.start()
        worker.wait(lambda: worker.lag() == 0)
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    found = audit(apache_kafka, topics[0], [topics[1]], topics[2])
    assert (found.duplicates, found.strangers, found.dead_letters, found.tombstones) == (0, 0, {}, 120)
    seen: dict[bytes | None, list[bool]] = {}
    for message in read_to_end(apache_kafka, topics[1]):
        seen.setdefault(message.key(), []).append(message.value() is None)
    assert seen == {f"k{number}".encode(): [False, True, True] for number in range(60)}
