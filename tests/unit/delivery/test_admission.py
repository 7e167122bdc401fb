from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.admission import InFlight, RevokeBudget
from consumer.events import Partition, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

P, Q = Partition("reviews", 0), Partition("reviews", 1)
A, B, C = Partition("a", 0), Partition("b", 0), Partition("c", 0)


def record(partition: Partition, epoch: int, size: int) -> SourceRecord:
    return SourceRecord(*partition, 0, epoch, None, bytes(size), (), None, 0.0)


class Admission(InFlight):
    """Counts one record at a time."""

    def __init__(self, events: int, size: int, topics: Sequence[str] = ("reviews",)) -> None:
        super().__init__(events, size, RevokeBudget(30.0), topics)
        self._was_paused = False

    def one(self, partition: Partition, epoch: int, size: int) -> None:
        self.admit([record(partition, epoch, size)])

    def done(self, partition: Partition, epoch: int, size: int) -> None:
        self.durable([record(partition, epoch, size)], 0.0)

    def decide(self, now: float) -> str:
        """Of a single topic: what its poll thread does."""
        was, room = self._was_paused, self.intake(now)
        self._was_paused = bool(room.full)
        if room.full:
            return "pause"
        if was:
            return "resume"
        return "stall" if room.stall else "admit"


def test_fullness_stalls_for_a_second_then_pauses_until_half_is_free() -> None:
    """Short fullness is waited out; a pause lasts until the low mark and is lifted once."""
    admission = Admission(100, 1_000_000)
    for _ in range(100):
        assert admission.decide(0.0) == "admit"
        admission.one(P, 1, 10)
    assert admission.decide(1.0) == "stall"
    assert admission.decide(1.9) == "stall"
    assert admission.decide(2.0) == "pause"
    for _ in range(49):
        admission.done(P, 1, 10)
        assert admission.decide(3.0) == "pause"
    admission.done(P, 1, 10)
    assert admission.decide(3.0) == "resume"
    assert admission.decide(3.0) == "admit"


def test_a_stall_ends_as_soon_as_there_is_room_for_a_handful() -> None:
    """One durable record of 128 is not worth a poll, two are; the next fullness has its own second."""
    admission = Admission(128, 1_000_000)
    for _ in range(128):
        admission.one(P, 1, 10)
    assert admission.decide(0.0) == "stall"
    admission.done(P, 1, 10)
    assert admission.decide(0.5) == "stall"
    admission.done(P, 1, 10)
    assert admission.decide(0.9) == "admit"
    admission.one(P, 1, 10)
    admission.one(P, 1, 10)
    assert admission.decide(1.5) == "stall"
    assert admission.decide(2.4) == "stall"


def test_bytes_count_as_records_do() -> None:
    """A few large records fill the bound; a first one is admitted whatever its size."""
    admission = Admission(100, 1000)
    assert admission.decide(0.0) == "admit"
    admission.one(P, 1, 5000)
    assert admission.decide(0.0) == "stall"
    admission.done(P, 1, 5000)
    assert admission.decide(0.1) == "admit"


def test_what_may_be_taken_follows_the_mean_size() -> None:
    """With half the bytes used by four records four more are admitted, and always at least one."""
    admission = Admission(100, 1000)
    assert admission.intake(4.0).records == 100
    for _ in range(4):
        admission.one(P, 1, 125)
    assert admission.intake(4.0).records == 4
    admission.one(P, 1, 600)
    assert admission.intake(4.0).records == 1


def test_a_forgotten_assignment_makes_room_and_its_late_records_none() -> None:
    """What a revoked partition had in flight stops counting, once."""
    admission = Admission(10, 1000)
    admission.one(P, 1, 100)
    admission.one(Q, 2, 50)
    assert not admission.forget({P: 1})
    admission.done(P, 1, 100)
    assert (admission.events, admission.bytes) == (1, 50)
    admission.one(P, 3, 7)
    admission.done(P, 1, 100)
    assert (admission.events, admission.bytes) == (2, 57)


@given(st.lists(st.tuples(st.sampled_from((P, Q)), st.integers(0, 400)), max_size=60), st.integers(1, 20))
def test_intake_that_asks_first_passes_the_bound_by_one_record_at_most(
    records: list[tuple[Partition, int]], cap: int
) -> None:
    """Records are bounded exactly, bytes up to the record that crosses the bound."""
    admission = Admission(cap, 1000)
    for partition, size in records:
        if admission.decide(0.0) == "admit":
            before = admission.bytes
            admission.one(partition, 1, size)
            assert before < 1000
        assert admission.events <= cap


def test_a_bound_below_one_is_refused() -> None:
    """It would admit nothing, ever."""
    with pytest.raises(ValueError, match=r"limits\.in_flight_events"):
        Admission(0, 1)


def test_a_limit_holds_until_it_is_lifted() -> None:
    """What is in flight already counts; lifted, intake starts at the configured bound's marks again."""
    admission = Admission(1000, 1_000_000)
    for _ in range(30):
        admission.one(P, 1, 10)
    admission.limit("reviews", 20)
    assert admission.decide(0.0) == "stall"
    assert admission.decide(1.0) == "pause"
    for _ in range(20):
        assert admission.decide(1.0) == "pause"
        admission.done(P, 1, 10)
    assert admission.decide(2.0) == "resume"
    assert admission.intake(4.0).records == 10
    for _ in range(10):
        assert admission.decide(3.0) == "admit"
        admission.one(P, 1, 10)
    assert admission.decide(3.0) == "stall"
    admission.limit("reviews", None)
    assert admission.decide(3.1) == "admit"
    assert admission.intake(4.0).records == 980


def test_a_limit_never_raises_the_bound() -> None:
    """A worker configured for few records in flight has no more of them in a trial."""
    admission = Admission(2, 1000)
    admission.limit("reviews", 20)
    assert admission.intake(4.0).records == 2


def fill(admission: Admission, partition: Partition, now: float = 0.0, size: int = 10) -> int:
    """Records of one topic that never become durable come until it is paused; how many were taken."""
    taken = 0
    while partition.topic not in admission.intake(now).full:
        if admission.intake(now).stall:
            now += 2.0
        else:
            admission.one(partition, 1, size)
            taken += 1
    return taken


def test_a_topic_that_stands_still_leaves_the_others_their_share() -> None:
    """It takes the common half and its own share; the rest is for the others, and all together keep to the cap."""
    admission = Admission(2000, 1 << 26, ("a", "b", "c", "d"))
    assert fill(admission, A) == 1250
    assert admission.intake(9.0).full == {"a"}
    assert not admission.intake(9.0).stall
    assert admission.intake(9.0).records == 250
    assert fill(admission, B) == 250
    assert fill(admission, C) == 250
    assert admission.events == 1750
    assert admission.intake(9.0).full == {"a", "b", "c"}
    for _ in range(125):
        admission.done(B, 1, 10)
    assert admission.intake(9.0).full == {"a", "c"}
    for _ in range(1000):
        admission.done(A, 1, 10)
    assert admission.intake(9.0).full == set(), "what it gives back is lent to the others"


def test_a_topic_that_is_paused_holds_up_no_other() -> None:
    """One record below its cap, or at it, it is no reason to stall, nor to take records one by one."""
    admission = Admission(2000, 1 << 26, ("a", "b"))
    for _ in range(1499):
        admission.one(A, 1, 10)
    assert admission.intake(0.0).records == 1
    assert admission.intake(0.0, {"a"}).records == 501
    admission.one(A, 1, 10)
    assert admission.intake(0.0).stall
    for now in (0.0, 5.0):
        assert admission.intake(now, {"a"}) == (frozenset(), False, 500)
    assert admission.intake(6.0).stall, "it is waited for anew once it is no longer paused"


def test_the_trial_of_one_topic_does_not_stall_the_others() -> None:
    """At its few records it is paused at once; the others take as many as ever."""
    admission = Admission(2000, 1 << 26, ("a", "b"))
    admission.limit("a", 20)
    for _ in range(20):
        admission.one(A, 1, 10)
    room = admission.intake(0.0)
    assert room.full == {"a"}
    assert not room.stall
    assert room.records > 1000
    for _ in range(10):
        admission.done(A, 1, 10)
    assert admission.intake(0.0).full == set()


def test_without_a_stall_a_full_topic_pauses_at_once() -> None:
    """So that of several lanes none waits for a backlog of another."""
    admission = Admission(400, 1 << 26, ("a", "b"))
    admission.stall_seconds = 0.0
    for _ in range(300):
        admission.one(A, 1, 10)
    room = admission.intake(0.0)
    assert room.full == {"a"}
    assert not room.stall
    assert room.records == 100, "b's own share"


TOPICS = ("a", "b", "c")


@given(
    st.integers(1, 40),
    st.integers(1, 2000),
    st.lists(
        st.tuples(
            st.sampled_from(("take", "take", "take", "end", "pause", "time")),
            st.sampled_from(TOPICS),
            st.integers(1, 300),
        ),
        max_size=120,
    ),
)
def test_whatever_topics_do_the_caps_hold_and_none_starves_the_others(
    cap: int, size: int, steps: list[tuple[str, str, int]]
) -> None:
    """Records exactly, bytes up to one record a topic; a topic with nothing in flight is never full nor stalled."""
    admission = Admission(cap, size, TOPICS)
    held: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    paused: set[str] = set()
    now = 0.0
    for what, topic, number in steps:
        if what == "time":
            now += number / 100
        elif what == "pause":
            paused ^= {topic}
        elif what == "end" and held[topic]:
            admission.done(Partition(topic, 0), 1, held[topic].pop(number % len(held[topic])))
        elif what == "take":
            room = admission.intake(now, paused)
            if not room.stall and topic not in room.full | paused:
                admission.one(Partition(topic, 0), 1, number)
                held[topic].append(number)
        assert admission.events == sum(map(len, held.values())) <= max(cap, len(TOPICS))
        assert admission.bytes == sum(map(sum, held.values())) <= max(size, len(TOPICS)) + 300 * len(TOPICS)
        for each in TOPICS:
            others = set(TOPICS) - {each}
            if not held[each]:
                alone = admission.intake(now, paused | others)
                assert each not in alone.full
                assert not alone.stall


def test_topics_of_a_pattern_have_one_share() -> None:
    """However many there are; the other inputs keep theirs, and a limit is that of all of them."""
    admission = Admission(100, 10_000, (r"^shop\..*$", "other"))
    for number in range(75):
        admission.one(Partition(f"shop.{number}", 0), 1, 10)
    assert admission.intake(0.0).stall
    assert admission.intake(1.0).full == {r"^shop\..*$"}
    admission.limit(r"^shop\..*$", 1)
    for number in range(75):
        admission.done(Partition(f"shop.{number}", 0), 1, 10)
    assert (admission.events, admission.intake(1.0)) == (0, (frozenset(), False, 1))
