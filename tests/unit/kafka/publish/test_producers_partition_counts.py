from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from consumer.events import Output
from consumer.kafka.publish.producers import KEYED, PartitionCounts


class Bench:
    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.now = 0.0
        self.asked: list[str] = []
        self.down = False
        self.cache = PartitionCounts(self.look_up, lambda: self.now)

    def look_up(self, topic: str, seconds: float) -> int:  # noqa: ARG002
        self.asked.append(topic)
        if self.down:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self.counts.get(topic, 0)

    def place(self, partition: int | None) -> int | None:
        return self.cache.place(Output("out", b"k", b"v", (), partition), "in")


def test_counts_are_asked_for_once_in_five_minutes() -> None:
    """And then again, so that a topic that grew is noticed."""
    bench = Bench(**{"in": 4, "out": 4})
    for _ in range(10):
        assert bench.place(2) == 2
    assert bench.asked == ["out", "in"]
    bench.counts["out"] = 8
    bench.now = 301.0
    assert bench.place(2) == KEYED


def test_a_known_count_outlives_an_outage() -> None:
    """An unknown one does not exist."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(1) == 1
    bench.down = True
    bench.now = 301.0
    assert bench.place(1) == 1
    assert Bench().place(1) is None


def test_an_input_topic_that_grew_is_asked_for_again() -> None:
    """A partition number beyond the cached count is never handed to a topic that lacks it."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(3) == 3
    bench.counts["in"] = 6
    assert bench.place(5) == KEYED
    bench.asked.clear()
    assert bench.place(5) == KEYED
    assert bench.asked == []
