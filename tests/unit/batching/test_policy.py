"""The batching policy, with plain numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.batching.policy import PADDED_LENGTHS, LengthCut, LengthQueue, Pending, padded_length

lengths = st.integers(1, 512)


def queue_of(*windows: Pending) -> LengthQueue:
    queue = LengthQueue()
    for window in windows:
        queue.add(window)
    return queue


def pending(id: int, length: int, deadline: float = 0.0, level: int = 0, enqueued: float = 0.0) -> Pending:  # noqa: A002
    return Pending(id, length, deadline, level, enqueued)


def test_an_idle_server_gets_a_lone_window_at_once() -> None:
    """Nothing is gained by waiting when the server has nothing to do."""
    decision = LengthCut(16_384, 2).decide(0.0, queue_of(pending(1, 40)), 0)
    (batch,) = decision.batches
    assert [w.id for w in batch.windows] == [1]
    assert batch.padded_length == 40
    assert batch.reason == "idle"


def test_a_busy_server_waits_for_company_and_then_lingers_no_longer() -> None:
    """With a call in flight the batch grows until the linger time of its most urgent window is over."""
    policy = LengthCut(16_384, 2)
    queue = queue_of(pending(1, 40, enqueued=5.0))
    early = policy.decide(5.0, queue, 1)
    assert early.batches == ()
    assert early.wake_at == 5.0 + policy.LINGER_SECONDS
    (batch,) = policy.decide(early.wake_at, queue, 1).batches
    assert batch.reason == "linger"


def test_a_busy_server_gets_a_full_batch_at_once() -> None:
    """A batch that cannot grow has nothing to wait for."""
    queue = queue_of(*(pending(i, 512) for i in range(5)))
    (batch,) = LengthCut(1024, 2).decide(0.0, queue, 1).batches
    assert batch.reason == "full"
    assert len(batch.windows) == 2


def test_nothing_is_sent_above_the_limit_of_calls_in_flight() -> None:
    """A server at its limit waits for an answer, not for the clock."""
    queue = queue_of(*(pending(i, 100) for i in range(50)))
    decision = LengthCut(512, 2).decide(0.0, queue, 2)
    assert decision.batches == ()
    assert decision.wake_at is None
    assert len(queue) == 50


def test_the_most_urgent_window_is_always_in_the_next_batch() -> None:
    """A long window that is due is not starved by many short ones."""
    queue = queue_of(*(pending(i, 24, deadline=9.0) for i in range(500)), pending(999, 500, deadline=1.0))
    (batch,) = LengthCut(16_384, 1).decide(0.0, queue, 0).batches
    assert 999 in {w.id for w in batch.windows}
    assert batch.padded_length == 512
    assert len(batch.windows) == 1, "short windows would be nearly all padding beside it"


def test_started_events_come_before_new_ones_of_the_same_deadline() -> None:
    """A deeper level wins a tie, so that work in progress is finished first."""
    queue = queue_of(pending(1, 512, level=0), pending(2, 512, level=1))
    (batch,) = LengthCut(512, 1).decide(0.0, queue, 0).batches
    assert [w.id for w in batch.windows] == [2]


@settings(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=200), st.integers(512, 8192), st.integers(1, 3))
def test_every_window_is_sent_once_inside_the_budget(
    all_lengths: list[int], max_tokens: int, max_in_flight: int
) -> None:
    """Whatever waits: no window is lost or doubled, no batch is over the budget, and none is too short for a row."""
    policy = LengthCut(max_tokens, max_in_flight)
    queue = queue_of(*(pending(i, n, deadline=float(i % 7)) for i, n in enumerate(all_lengths)))
    seen: list[int] = []
    now = 0.0
    while len(queue):
        urgent = queue.most_urgent()
        assert urgent is not None
        decision = policy.decide(now, queue, 0)
        assert decision.batches, "an idle server and a waiting window always make a batch"
        assert urgent.id in {w.id for w in decision.batches[0].windows}
        for batch in decision.batches:
            assert len(batch.windows) * batch.padded_length <= max_tokens
            assert batch.padded_length == padded_length(max(w.length for w in batch.windows))
            padded = sum(padded_length(w.length) for w in batch.windows)
            assert 1 - padded / (len(batch.windows) * batch.padded_length) <= policy.MAX_PADDING
            seen += [w.id for w in batch.windows]
        now += 1.0
    assert sorted(seen) == list(range(len(all_lengths)))


@settings(deadline=None)
@given(lengths)
def test_a_padded_length_fits_and_wastes_little(length: int) -> None:
    """Rounding up costs fewer than 8 tokens up to 128 and fewer than 32 above, never more than 512 in all."""
    padded = padded_length(length)
    assert length <= padded <= 512
    assert padded - length < (8 if length <= 128 else 32)
    assert padded in PADDED_LENGTHS
