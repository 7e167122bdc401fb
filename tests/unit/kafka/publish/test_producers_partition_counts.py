from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from consumer.events import Output
from consumer.kafka.publish.producers import KEYED, LATER, LOOKUP_SECONDS, RETRY_SECONDS, PartitionCounts


class Bench:
    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.now = 0.0
        self.asked: list[str] = []
        self.down = False
        self.answer_seconds = 0.0
        self.cache = PartitionCounts(self.look_up, lambda: self.now)

    def look_up(self, topic: str, seconds: float) -> int:
        self.asked.append(topic)
        self.now += seconds if self.down else self.answer_seconds
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
    bench.cache.new_round()
    assert bench.place(2) == KEYED


def test_a_count_that_was_wrong_is_looked_up_at_once() -> None:
    """Also in the round that has used it."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(3) == 3
    bench.counts["out"] = 2
    bench.cache.forget("out")
    assert bench.place(3) == KEYED


def test_a_known_count_outlives_an_outage() -> None:
    """An unknown one does not exist."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(1) == 1
    bench.down = True
    bench.now = 301.0
    bench.cache.new_round()
    assert bench.place(1) == 1
    assert Bench().place(1) is None


def test_a_topic_is_missing_only_where_brokers_say_so() -> None:
    """Brokers that do not answer say nothing; and no round waits longer than it may."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(1) == 1
    bench.down = True
    assert not bench.cache.any_missing(["out", "in"])
    assert bench.now == LOOKUP_SECONDS
    assert bench.place(1) == 1
    bench.down = False
    bench.cache.new_round()
    assert not bench.cache.any_missing(["out", "in"])
    del bench.counts["out"]
    assert bench.cache.any_missing(["in", "out"])
    assert bench.place(1) is None


MANY = {f"out-{n}": 4 for n in range(30)}


def places(bench: Bench, topics: dict[str, int] = MANY) -> list[int | None]:
    """Where one output of each topic goes, in one round of the release thread."""
    bench.cache.new_round()
    return [bench.cache.place(Output(topic, b"k", b"v", (), 1), "in") for topic in topics]


def test_counts_of_many_topics_that_expire_in_an_outage_cost_one_lookup_in_half_a_minute() -> None:
    """The old ones are used meanwhile. A watchdog ends a worker whose release thread waits for all of them."""
    bench = Bench(**{"in": 4, **MANY})
    assert places(bench) == [1] * 30
    assert len(bench.asked) == 31
    bench.now = 301.0
    bench.cache.new_round()
    bench.down = True
    bench.asked.clear()
    for _ in range(10):
        started = bench.now
        assert places(bench) == [1] * 30
        assert bench.now - started <= LOOKUP_SECONDS
    assert len(bench.asked) == 1
    bench.now += RETRY_SECONDS
    places(bench)
    assert len(bench.asked) == 2
    bench.down = False
    bench.now += RETRY_SECONDS
    bench.counts["out-7"] = 8
    places(bench)
    assert places(bench)[7] == KEYED


def test_unknown_topics_in_an_outage_cost_one_lookup_a_round_and_every_other_round() -> None:
    """Known ones go on beside them."""
    bench = Bench(**{"in": 4, "known": 4})
    assert bench.cache.place(Output("known", b"k", b"v", (), 1), "in") == 1
    bench.down = True
    for round_ in range(1, 6):
        assert places(bench) == [None] * 30
        assert len(bench.asked) == 2 + round_
        bench.cache.new_round()
        assert bench.cache.place(Output("known", b"k", b"v", (), 1), "in") == 1
        bench.now += LOOKUP_SECONDS


def test_slow_answers_are_spread_over_rounds() -> None:
    """Brokers that take 0.3 s for each: what is not looked up yet waits for the next round, and is not refused."""
    bench = Bench(**{"in": 4, **MANY})
    bench.answer_seconds = 0.3
    rounds: list[list[int | None]] = []
    while not rounds or LATER in rounds[-1]:
        started = bench.now
        rounds.append(places(bench))
        assert bench.now - started < LOOKUP_SECONDS + 0.3
    assert len(rounds) == 5
    assert rounds[-1] == [1] * 30
    assert not any(None in each for each in rounds)
    assert len(bench.asked) == 31


def test_an_input_topic_that_grew_is_asked_for_again() -> None:
    """A partition number beyond the cached count is never handed to a topic that lacks it."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(3) == 3
    bench.counts["in"] = 6
    assert bench.place(5) == KEYED
    bench.asked.clear()
    assert bench.place(5) == KEYED
    assert bench.asked == []


def test_a_partition_that_no_count_covers_yet_leaves_the_others_theirs() -> None:
    """In one round: while brokers do not say how many an input topic has now, only what is beyond goes by its key."""
    bench = Bench(**{"in": 4, "out": 4})
    assert bench.place(1) == 1
    bench.cache.new_round()
    assert [bench.place(number) for number in (1, 5, 1, 5, 3)] == [1, KEYED, 1, KEYED, 3]
