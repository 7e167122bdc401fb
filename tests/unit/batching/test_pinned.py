"""Events and the model version that began them, while servers have several."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.batching.pinned import Pinned
from consumer.batching.policy import Call, CallCost, CallTimes, LeastTime, Load
from consumer.batching.queue import LengthQueue, Pending

COST = CallCost(floor=0.0, fixed=0.1, per_token=1e-4, per_pair=0.0)
POLICY = LeastTime(2048, 2, COST)


def idle(*versions: str) -> list[Load]:
    return [Load([], CallTimes(COST), 2048, 2) for _ in versions]


def begun(number: int, version: str, length: int = 40) -> Pending:
    return Pending(number, length, 0.0, 1, 0.0, version=version)


def test_a_begun_event_waits_for_its_version_and_new_ones_take_the_other_server() -> None:
    """The server of its version is full; that it waits there costs the others nothing."""
    pinned, common = Pinned(POLICY, None), LengthQueue()
    pinned.decide(0.0, common, idle("1", "2"), ["1", "2"])
    assert pinned.versions == {"1", "2"}
    for number in range(200):
        pinned.add(begun(number, "1", 512))
    common.add(Pending(999, 40, 0.0, 0, 0.0))
    decision = pinned.decide(0.0, common, idle("1", "2"), ["1", "2"])
    assert [(batch.endpoint, len(batch.windows)) for batch in decision.batches] == [(0, 4), (0, 4), (1, 1)]
    assert pinned.size == 192


def test_a_large_event_that_began_goes_behind_what_is_more_urgent() -> None:
    """It always has windows that wait for its version: if they went first, no other event would begin beside it."""
    pinned, common = Pinned(POLICY, None), LengthQueue()
    pinned.decide(0.0, common, idle("1", "1"), ["1", "2"])
    for number in range(200):
        pinned.add(Pending(number, 512, 9.0, 0, 0.0, over_share=True, version="12"[number % 2]))
    common.add(Pending(999, 40, 5.0, 0, 0.0))
    first, *others = pinned.decide(0.0, common, idle("1", "2"), ["1", "2"]).batches
    assert [window.id for window in first.windows] == [999]
    assert {window.over_share for batch in others for window in batch.windows} == {True}


def test_it_is_asked_again_when_the_first_of_the_servers_may_be_free() -> None:
    """Whichever has the most urgent window."""
    pinned, common = Pinned(POLICY, None), LengthQueue()
    pinned.decide(0.0, common, idle("1", "2"), ["1", "2"])
    pinned.add(begun(1, "1"))
    pinned.add(begun(2, "2"))
    busy = [Load([Call(rows, 40, 0.0)], CallTimes(COST), 2048, 2) for rows in (40, 10)]
    wake_at = pinned.decide(0.0, common, busy, ["1", "2"]).wake_at
    assert wake_at == pytest.approx(COST.seconds(10, 40) - POLICY.prepare_seconds(1))


@pytest.mark.parametrize("served", [["2", "2"], [None, "2"]])
def test_an_event_whose_version_is_gone_is_answered_by_another(served: list[str | None]) -> None:
    """It begins again, but it does not wait for what will not come."""
    pinned, common = Pinned(POLICY, None), LengthQueue()
    pinned.decide(0.0, common, idle("1", "2"), ["1", "2"])
    pinned.add(begun(1, "1"))
    (batch,) = pinned.decide(0.0, common, idle("2", "2"), served).batches
    assert [window.id for window in batch.windows] == [1]
    assert pinned.versions == frozenset()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "1", "2", "3"]), st.integers(1, 512), st.booleans()), max_size=60))
def test_every_window_is_sent_once_and_to_its_version_while_that_is_served(
    windows: list[tuple[str, int, bool]],
) -> None:
    """Of all lanes and kinds, also when the versions change on the way."""
    lanes = {"live": 4.0, "replay": 1.0}
    pinned, common, sent = Pinned(POLICY, lanes), LengthQueue(lanes), list[int]()
    pinned.decide(0.0, common, idle("1", "2"), ["1", "2"])
    for number, (version, length, over) in enumerate(windows):
        pending = Pending(number, length, 0.0, 0, 0.0, "replay" if number % 3 else "live", over, version)
        (pinned if version in pinned.versions else common).add(pending)
    for turn in range(len(windows) + 2):
        served: list[str | None] = ["1", "2"] if turn < 2 else ["2", "3"]
        for batch in pinned.decide(0.0, common, idle("", ""), served).batches:
            sent += [window.id for window in batch.windows]
            for window in batch.windows:
                assert window.version not in pinned.versions or turn >= 2 or window.version == served[batch.endpoint]
    assert sorted(sent) == list(range(len(windows)))
