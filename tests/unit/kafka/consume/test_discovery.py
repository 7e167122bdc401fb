"""What is said of the topics that patterns match, and what looking for them costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from runtime_harness import Observed
from structlog.testing import capture_logs

from consumer.events import Partition
from consumer.kafka.consume.discovery import SHOWN, Discovery
from consumer.kafka.consume.lag import DISCOVERY_SECONDS, LagWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict

SHOPS, ANY = r"^shop\..*$", r"^[a-z].*\.reviews$"


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def test_every_change_is_logged_once_and_counted(logs: list[EventDict]) -> None:
    """None at all is a warning, at the start and whenever the last one goes."""
    observer = Observed()
    discovery = Discovery((SHOPS, "shop.own"), observer)
    assert discovery.counts == {}
    steps = [
        (["other"], 0, ["warning"]),
        (["other", "more"], 0, []),
        (["shop.a", "shop.own", "shop.b"], 2, ["info"]),
        (["shop.a", "shop.own", "shop.b"], 2, []),
        (["shop.b", "shop.c"], 2, ["info"]),
        ([], 0, ["info", "warning"]),
    ]
    for topics, count, levels in steps:
        logs.clear()
        discovery.saw(topics)
        assert (discovery.counts, observer.matches) == ({SHOPS: count}, {SHOPS: count})
        assert [line["log_level"] for line in logs] == levels
    assert (logs[0]["new"], logs[0]["gone"]) == ([], ["shop.b", "shop.c"])
    assert "DESCRIBE" in logs[1]["fix"]


def test_a_topic_of_two_patterns_is_named(logs: list[EventDict]) -> None:
    """Once; the first route reads it. Lines stay short, however many topics there are."""
    discovery = Discovery((SHOPS, ANY), Observed())
    for _ in range(2):
        discovery.saw(["shop.a.reviews", "a.reviews", *(f"shop.{number}" for number in range(1000))])
    assert discovery.counts == {SHOPS: 1001, ANY: 1}
    (twice,) = [line for line in logs if line["log_level"] == "warning"]
    assert (twice["topics"], twice["count"]) == (["shop.a.reviews"], 1)
    assert max(len(line.get("new", ())) for line in logs) == SHOWN


class Client:
    """A cluster of thousands of topics; it counts the questions for topics."""

    def __init__(self) -> None:
        self.now = 0.0
        self.topics = [f"shop.{number}" for number in range(2000)]
        self.asked: list[str | None] = []
        self.fails = False
        self.error: KafkaError | None = None

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        assert timeout
        self.asked.append(topic)
        if self.fails:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        found = SimpleNamespace(error=self.error, partitions={0: SimpleNamespace(leader=1)})
        return SimpleNamespace(topics=dict.fromkeys(self.topics if topic is None else [topic], found))

    def committed(self, positions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout
        return [TopicPartition(p.topic, p.partition, 5) for p in positions]

    def offsets_for_times(self, positions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout
        return [TopicPartition(p.topic, p.partition, 7) for p in positions]


def test_thousands_of_topics_cost_one_question_in_half_a_minute() -> None:
    """It also says who leads them. Until something matches it is asked every time, and after a failure."""
    client = Client()
    partitions = [Partition(topic, 0) for topic in client.topics]
    client.fails = True

    def watch(pattern: str) -> LagWatch:
        made: Any = lambda *_, **__: client  # noqa: E731
        return LagWatch(
            {}, "g", lambda: partitions, Observed(), clock=lambda: client.now, new_client=made, inputs=(pattern,)
        )

    watching = watch(SHOPS)
    watching._discover()
    assert watching.discovery.counts == {}
    client.fails, client.asked = False, []
    for _ in range(3):
        watching.look()
        client.now += DISCOVERY_SECONDS / 3 - 0.1
    assert client.asked == [None]
    assert watching.lags == dict.fromkeys(partitions, 2)
    client.now += 1.0
    watching.look()
    assert client.asked == [None, None]
    client.asked, watching = [], watch("^none$")
    partitions = []
    for _ in range(3):
        watching.look()
    assert client.asked == [None] * 3


def test_partitions_of_an_input_are_asked_for_without_a_producer() -> None:
    """None of a topic that is not there, or cannot be used."""
    client = Client()
    made: Any = lambda *_, **__: client  # noqa: E731
    watching = LagWatch({}, "g", list, Observed(), new_client=made)
    assert watching.partitions("shop.1", 2.0) == 1
    client.error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert watching.partitions("shop.1", 2.0) == 0
    client.fails = True
    with pytest.raises(KafkaException):
        watching.partitions("shop.1", 2.0)
