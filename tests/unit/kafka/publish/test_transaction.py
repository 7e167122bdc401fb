"""Which outputs stand for all partitions of a transaction."""

from __future__ import annotations

from consumer.delivery.ledger import Release
from consumer.events import Outcome, Output, Partition, SourceRecord
from consumer.kafka.publish.producers import PartitionCounts
from consumer.kafka.publish.transaction import Transaction, one_of_each_partition


def released(offset: int, *outputs: Output) -> Release:
    return Release(
        Partition("in", 0), SourceRecord("in", 0, offset, 1, None, b"", (), None, 0.0), Outcome("done", outputs)
    )


def test_every_partition_that_was_produced_to_has_one_output() -> None:
    """By its number where that is kept, else by the key that chooses it."""
    counts = PartitionCounts(lambda topic, _: {"in": 4, "out": 4, "wide": 8}[topic], lambda: 0.0)

    def out(topic: str, number: int, key: bytes) -> Output:
        return Output(topic, key, b"v", (), number)

    batch = [
        released(0, out("out", 0, b"a"), out("wide", 0, b"a")),
        released(1, out("out", 0, b"b"), out("wide", 0, b"b")),
        released(2, out("out", 0, b"a"), out("wide", 0, b"a")),
        released(3, out("out", 1, b"a")),
    ]
    chosen = one_of_each_partition(Transaction(batch), counts)
    assert [(r.record.offset, [(o.topic, o.partition, o.key) for o in r.outcome.outputs]) for r in chosen] == [
        (0, [("out", 0, b"a"), ("wide", 0, b"a")]),
        (1, [("wide", 0, b"b")]),
        (3, [("out", 1, b"a")]),
    ]
