from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from consumer.events import Partition
from consumer.kafka.consume.assignment import Pauses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import TopicPartition

P, Q, R = Partition("in", 0), Partition("in", 1), Partition("in", 2)
S = Partition("other", 0)


class Consumer:
    """Refuses to resume what is not paused: librdkafka would rewind it."""

    def __init__(self) -> None:
        self.topics: set[tuple[str, int]] = set()
        self.calls = 0

    @property
    def paused(self) -> set[int]:
        """The paused partitions of topic ``in``."""
        return {number for topic, number in self.topics if topic == "in"}

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.topics |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        assert {(p.topic, p.partition) for p in partitions} <= self.topics
        self.topics -= {(p.topic, p.partition) for p in partitions}


def make() -> tuple[Any, Pauses, list[frozenset[str]]]:
    reported: list[frozenset[str]] = []
    consumer = Consumer()

    class Hooks:
        def paused(self, reasons: Mapping[str, frozenset[str]]) -> None:
            reported.append(frozenset(reasons))

    hooks: Any = Hooks()
    return consumer, Pauses(hooks, ("in", "other")), reported


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


def test_a_reason_pauses_its_topics_and_no_others() -> None:
    """Two reasons overlap: a topic goes on when its own last reason is gone, whatever stops the others."""
    consumer, pauses, _ = make()
    pauses.pause("output", ["in"])
    pauses.apply(consumer, [P, Q, S])
    assert consumer.topics == {("in", 0), ("in", 1)}
    pauses.pause("flood", ["in", "other"])
    pauses.apply(consumer, [P, Q, S])
    assert consumer.topics == {("in", 0), ("in", 1), ("other", 0)}
    pauses.pause("flood", ["other"])
    pauses.resume("output")
    pauses.apply(consumer, [P, Q, S])
    assert consumer.topics == {("other", 0)}
    assert pauses.reasons == {"flood": {"other"}}
    pauses.pause("flood", [])
    pauses.apply(consumer, [P, Q, S])
    assert (consumer.topics, pauses.reasons) == (set(), {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("pause", "all", "resume", "assign", "unassign", "apply")),
            st.sampled_from(("flood", "output")),
            st.sets(st.sampled_from((P, Q, S))),
        )
    )
)
def test_what_is_paused_is_always_what_some_reason_names(
    steps: Sequence[tuple[str, str, set[Partition]]],
) -> None:
    """After every round, of what is assigned then; and nothing is resumed that was not paused."""
    consumer, pauses, _ = make()
    assigned: set[Partition] = set()
    wanted: dict[str, set[str]] = {}
    for what, reason, partitions in steps:
        topics = {each.topic for each in partitions}
        if what == "pause":
            pauses.pause(reason, topics)
            wanted[reason] = topics
        elif what == "all":
            pauses.pause(reason)
            wanted[reason] = {"in", "other"}
        elif what == "resume":
            pauses.resume(reason)
            wanted.pop(reason, None)
        elif what == "assign":
            pauses.assign(consumer, partitions - assigned)
            assigned |= partitions
        elif what == "unassign":
            pauses.unassign(consumer, partitions & assigned)
            assigned -= partitions
        else:
            pauses.apply(consumer, assigned)
            paused = {topic for topics in wanted.values() for topic in topics}
            assert consumer.topics == {tuple(each) for each in assigned if each.topic in paused}


def test_topics_of_a_pattern_pause_together() -> None:
    """Whichever of them has the reason, and those that are assigned later, too; other inputs go on."""
    hooks: Any = type("Hooks", (), {"paused": lambda *_: None})()
    consumer, pauses = Consumer(), Pauses(hooks, (r"^shop\..*$", "other"))
    client: Any = consumer
    a, b, late = (Partition(f"shop.{name}", 0) for name in ("a", "b", "late"))
    pauses.pause("output", ["shop.a", "shop.b"])
    assert pauses.reasons == {"output": {r"^shop\..*$"}}
    pauses.apply(client, [a, b, S])
    pauses.assign(client, [late])
    assert consumer.topics == {a, b, late}
    pauses.pause("output", [])
    pauses.apply(client, [a, b, late, S])
    assert consumer.topics == set()
    patterns = [f"^{'a?' * number}shop$" for number in range(9)]
    assert Pauses(hooks, patterns).input_of["shop"] == patterns[0], "the first of the routes reads it"
