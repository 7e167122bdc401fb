"""When the windows that a model refuses are its fault and not theirs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.resilience.rejection_quorum import CERTAIN, RejectionQuorum


def events(count: int, first: int = 0) -> list[int]:
    return list(range(first, first + count))


@pytest.mark.parametrize(
    ("guilty", "of", "model"),
    [
        (1, 1, False),
        (1, 2, False),
        (2, 2, False),
        (CERTAIN - 1, CERTAIN - 1, False),
        (CERTAIN, CERTAIN, True),
        (1, 64, False),
        (2, 64, False),
        (7, 64, False),
        (32, 64, False),
        (33, 64, True),
        (64, 64, True),
    ],
)
def test_most_windows_of_a_batch_decide(guilty: int, of: int, model: bool) -> None:
    """A minority is bad input, a majority is the model; and of very few windows none says anything of the model."""
    assert RejectionQuorum().blames_model(events(guilty), of - guilty) is model


def test_one_event_is_one_witness_however_many_windows_it_has() -> None:
    """A bad schema fails every window of its event, in every batch; that must not stop the worker."""
    jury = RejectionQuorum()
    for _ in range(50):
        assert not jury.blames_model(["one"] * 64, 0)


def test_batches_of_one_that_fail_again_and_again_are_recognised() -> None:
    """At low load there is no batch with a majority in it."""
    jury = RejectionQuorum()
    verdicts = [jury.blames_model([event], 0) for event in events(CERTAIN)]
    assert verdicts == [False] * (CERTAIN - 1) + [True]
    assert jury.blames_model(["another"], 0), "until it is mended"
    jury.acquit()
    assert not jury.blames_model(["another"], 0)


def test_old_successes_do_not_outweigh_a_model_that_breaks() -> None:
    """A hundred thousand answers before it excuse nothing."""
    jury = RejectionQuorum()
    jury.answered(100_000)
    assert [jury.blames_model([event], 0) for event in events(CERTAIN)][-1]


@settings(deadline=None)
@given(st.integers(1, CERTAIN - 1), st.integers(1, 10), st.integers(1, 300))
def test_bad_events_among_as_many_good_ones_are_bad_events(bad: int, more: int, rounds: int) -> None:
    """However long it goes on."""
    jury = RejectionQuorum()
    for number in range(rounds):
        assert not jury.blames_model(events(bad, number * bad), 0)
        jury.answered(bad + more)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60))
def test_no_verdict_against_the_model_without_enough_events(batches: list[tuple[int, int]]) -> None:
    """Whatever the order, ``CERTAIN`` different events were refused before the model is blamed, and every model that
    refuses all it is asked is blamed by then."""
    jury = RejectionQuorum()
    refused = run = 0
    for guilty, answered in batches:
        if not guilty:
            jury.answered(answered)
            run = 0 if answered else run
            continue
        new = events(guilty, refused)
        refused += guilty
        run = 0 if answered else run + guilty
        if jury.blames_model(new, answered):
            assert refused >= CERTAIN
            return
        assert run < CERTAIN
