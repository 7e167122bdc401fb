from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.admission import InFlight, RevokeBudget
from consumer.events import Partition

P, Q = Partition("reviews", 0), Partition("reviews", 1)


class Admission(InFlight):
    """Counts one record at a time."""

    def __init__(self, events: int, size: int) -> None:
        super().__init__(events, size, RevokeBudget(30.0))

    def one(self, partition: Partition, epoch: int, size: int) -> None:
        self.admit([(partition, epoch, size)])

    def done(self, partition: Partition, epoch: int, size: int) -> None:
        self.durable([(partition, epoch, size)], ())

    def decide(self, now: float) -> str:
        return self.intake(now)[0]


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
    assert admission.intake(4.0)[1] == 100
    for _ in range(4):
        admission.one(P, 1, 125)
    assert admission.intake(4.0)[1] == 4
    admission.one(P, 1, 600)
    assert admission.intake(4.0)[1] == 1


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
    admission.limit(20)
    assert admission.decide(0.0) == "stall"
    assert admission.decide(1.0) == "pause"
    for _ in range(20):
        assert admission.decide(1.0) == "pause"
        admission.done(P, 1, 10)
    assert admission.decide(2.0) == "resume"
    assert admission.intake(4.0)[1] == 10
    for _ in range(10):
        assert admission.decide(3.0) == "admit"
        admission.one(P, 1, 10)
    assert admission.decide(3.0) == "stall"
    admission.limit(None)
    assert admission.decide(3.1) == "admit"
    assert admission.intake(4.0)[1] == 980


def test_a_limit_never_raises_the_bound() -> None:
    """A worker configured for few records in flight has no more of them in a trial."""
    admission = Admission(2, 1000)
    admission.limit(20)
    assert admission.intake(4.0)[1] == 2
