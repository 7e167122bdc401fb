"""When rejected windows are the model's fault, and when they are bad input."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.resilience.rejection_quorum import QUORUM, RejectionQuorum


def events(count: int, first: int = 0) -> list[int]:
    return list(range(first, first + count))


@pytest.mark.parametrize(
    ("rejected", "of", "model"),
    [
        (1, 1, False),
        (1, 2, False),
        (2, 2, False),
        (QUORUM - 1, QUORUM - 1, False),
        (QUORUM, QUORUM, True),
        (1, 64, False),
        (2, 64, False),
        (7, 64, False),
        (32, 64, False),
        (33, 64, True),
        (64, 64, True),
    ],
)
def test_most_windows_of_a_batch_decide(rejected: int, of: int, model: bool) -> None:
    """A minority is bad input, a majority is the model; and of very few windows none says anything of the model."""
    assert RejectionQuorum().model_at_fault(events(rejected), of - rejected) is model


def test_one_event_counts_once_however_many_windows_it_has() -> None:
    """A bad schema fails every window of its event, in every batch; that must not stop the worker."""
    quorum = RejectionQuorum()
    for _ in range(50):
        assert not quorum.model_at_fault(["one"] * 64, 0)


def test_batches_of_one_that_fail_again_and_again_are_recognised() -> None:
    """At low load there is no batch with a majority in it."""
    quorum = RejectionQuorum()
    decisions = [quorum.model_at_fault([event], 0) for event in events(QUORUM)]
    assert decisions == [False] * (QUORUM - 1) + [True]
    assert quorum.model_at_fault(["another"], 0), "until it is repaired"
    quorum.reset()
    assert not quorum.model_at_fault(["another"], 0)


def test_old_successes_do_not_outweigh_a_model_that_breaks() -> None:
    """A hundred thousand answers before it excuse nothing."""
    quorum = RejectionQuorum()
    quorum.answered(100_000)
    assert [quorum.model_at_fault([event], 0) for event in events(QUORUM)][-1]


@settings(deadline=None)
@given(st.integers(1, QUORUM - 1), st.integers(1, 10), st.integers(1, 300))
def test_bad_events_among_as_many_good_ones_are_bad_events(bad: int, more: int, rounds: int) -> None:
    """However long it goes on."""
    quorum = RejectionQuorum()
    for number in range(rounds):
        assert not quorum.model_at_fault(events(bad, number * bad), 0)
        quorum.answered(bad + more)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60))
def test_the_model_is_not_at_fault_without_enough_events(batches: list[tuple[int, int]]) -> None:
    """Whatever the order, ``QUORUM`` different events were rejected before the model is at fault, and every
    model that rejects all it is asked is by then."""
    quorum = RejectionQuorum()
    seen = run = 0
    for rejected, answered in batches:
        if not rejected:
            quorum.answered(answered)
            run = 0 if answered else run
            continue
        new = events(rejected, seen)
        seen += rejected
        run = 0 if answered else run + rejected
        if quorum.model_at_fault(new, answered):
            assert seen >= QUORUM
            return
        assert run < QUORUM
