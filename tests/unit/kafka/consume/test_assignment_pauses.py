from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.events import Partition
from consumer.kafka.consume.assignment import Pauses

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

P, Q, R = Partition("in", 0), Partition("in", 1), Partition("in", 2)


class Consumer:
    """Refuses to resume what is not paused: librdkafka would rewind it."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.calls = 0

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused |= {p.partition for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        assert {p.partition for p in partitions} <= self.paused
        self.paused -= {p.partition for p in partitions}


def make() -> tuple[Any, Pauses, list[frozenset[str]]]:
    reported: list[frozenset[str]] = []
    consumer = Consumer()

    class Hooks:
        def paused(self, reasons: frozenset[str]) -> None:
            reported.append(reasons)

    hooks: Any = Hooks()
    return consumer, Pauses(hooks), reported


def test_resumed_is_exactly_what_was_paused() -> None:
    """Partitions that came and went during the pause included."""
    consumer, pauses, _ = make()
    pauses.pause("model")
    pauses.apply(consumer, [P, Q])
    pauses.assign(consumer, [R])
    pauses.unassign(consumer, [P])
    assert consumer.paused == {1, 2}  # the client keeps a pause beyond the assignment
    pauses.resume("model")
    pauses.assign(consumer, [P])  # it came back when the reason was gone, and was never paused this time
    pauses.apply(consumer, [P, Q, R])
    assert consumer.paused == set()


def test_every_reason_must_be_withdrawn() -> None:
    """One alone keeps consumption paused; what is applied twice is called once."""
    consumer, pauses, reported = make()
    pauses.pause("model")
    pauses.pause("output")
    pauses.pause("model")
    pauses.apply(consumer, [P])
    pauses.apply(consumer, [P])
    assert consumer.calls == 1
    pauses.resume("model")
    pauses.apply(consumer, [P])
    assert consumer.paused == {0}
    pauses.resume("output")
    pauses.apply(consumer, [P])
    assert consumer.paused == set()
    assert reported == [frozenset({"model"}), frozenset({"model", "output"}), frozenset({"output"}), frozenset()]


def test_without_a_reason_nothing_is_resumed() -> None:
    """Resuming a partition that was not paused rewinds it."""
    consumer, pauses, _ = make()
    pauses.apply(consumer, [P])
    pauses.assign(consumer, [P])
    pauses.resume("model")
    pauses.apply(consumer, [P])
    assert consumer.calls == 0
