"""Results into a database, each exactly once, whatever arrives twice and whenever this program is killed.

    python examples/subscribe.py localhost:9092 reviews.extracted facts.db [IDLE_SECONDS]

Several topics have commas between them. Four rules make it so, and none is particular to SQLite:

- ``result_id`` is the key. It is the same whenever the same event is extracted with the same task: after a worker was
  killed (at_least_once), after a replay of dead letters, after a producer that sent an event again. There is one row
  for each, so a second one adds none.
- Of two results with one id the one from the later record counts: a review that was edited and sent again under its
  ``event_id``. What arrives late of the earlier one changes nothing. Of one record's the last counts: it was extracted
  again, by a newer model for instance.
- A null value is a delete, where workers forward those (``on_delete: forward``): its topic's rows under its key go.
- The rows and the position in the topic are written in one transaction of the database, and the database's position is
  where reading starts. Kafka's own committed offsets are not needed.

``isolation.level`` makes no difference to workers in at_least_once; for exactly_once it is what hides aborted results.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

TABLES = """
CREATE TABLE IF NOT EXISTS facts (
    result_id TEXT PRIMARY KEY, event_id TEXT, product_id TEXT, task TEXT, extractions TEXT, model_version TEXT,
    record_partition TEXT, record_offset INTEGER, topic TEXT, key BLOB);
CREATE INDEX IF NOT EXISTS facts_by_key ON facts (topic, key);
CREATE TABLE IF NOT EXISTS positions (topic TEXT, number INTEGER, next_offset INTEGER, PRIMARY KEY (topic, number));
"""

INSERT_ONCE = """
INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (result_id) DO UPDATE SET
    product_id = excluded.product_id, extractions = excluded.extractions, model_version = excluded.model_version,
    record_partition = excluded.record_partition, record_offset = excluded.record_offset,
    topic = excluded.topic, key = excluded.key
WHERE excluded.record_partition <> facts.record_partition OR excluded.record_offset >= facts.record_offset
"""


def insert_once(database: sqlite3.Connection, result: dict[str, Any], topic: str, key: bytes | None) -> None:
    """One row a result, however often it comes. ``key`` is that of its record on ``topic``, under which it is deleted.

    ``extractions`` are paths of facts: [[{"type", "span", "start", "end", "score"}, …], …].
    """
    record = result["record"]
    database.execute(
        INSERT_ONCE,
        (
            result["result_id"],
            result["event_id"],
            result["product_id"],
            result["task"],
            json.dumps(result["extractions"], ensure_ascii=False),
            result["model"]["version"],
            f"{record['topic']}-{record['partition']}",
            record["offset"],
            topic,
            key,
        ),
    )


def main() -> int:
    """Read until nothing came for IDLE_SECONDS (default 5); a service would go on."""
    bootstrap_servers, topics, path = sys.argv[1:4]
    idle_seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 5.0
    database = sqlite3.connect(path)
    database.executescript(TABLES)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "example-subscriber",  # asked for by the client; offsets are the database's
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",  # a position that is gone (retention, a topic made anew): what is left
            "isolation.level": "read_committed",
        }
    )
    # Own positions need own partitions: several of these programs would divide them by configuration.
    assigned = []
    for topic in topics.split(","):
        found = consumer.list_topics(topic, timeout=10).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        known = dict(database.execute("SELECT number, next_offset FROM positions WHERE topic = ?", (topic,)).fetchall())
        assigned += [TopicPartition(topic, number, known.get(number, 0)) for number in found.partitions]
    consumer.assign(assigned)
    read, last = 0, time.monotonic()
    while time.monotonic() - last < idle_seconds:
        messages = consumer.consume(500, timeout=0.5)
        with database:  # one transaction: rows and positions, or neither
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
                topic, key = message.topic() or "", message.key()
                if (value := message.value()) is not None:
                    insert_once(database, json.loads(value), topic, key)
                    read += 1
                else:
                    database.execute("DELETE FROM facts WHERE topic = ? AND key = ?", (topic, key))
                position = (topic, message.partition(), (message.offset() or 0) + 1)
                database.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", position)
        if messages:
            last = time.monotonic()
    rows = database.execute("SELECT count(*) FROM facts").fetchone()[0]
    print(f"{read} results read, {rows} rows in {path}")
    consumer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
