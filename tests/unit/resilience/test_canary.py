"""Which events are the canary's, and when it loses them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.resilience.canary import (
    BACK_SECONDS,
    COLD_SECONDS,
    FEWEST_CALLS,
    FEWEST_REFUSED,
    HUNG_SECONDS,
    MOST_REFUSED,
    RETURN_SECONDS,
    CanaryFallback,
    hung_after,
    place_of,
)

FAST = [1.0] * FEWEST_CALLS


def look(fallback: CanaryFallback, now: float = 0.0, unusable: str = "", *, stable: bool = True) -> str | None:
    fallback.look(now, unusable=unusable, stable_usable=stable, rates=FAST, stable_rates=FAST)
    return fallback.reason


@given(st.binary(max_size=40))
def test_every_key_has_a_place(key: bytes) -> None:
    """Within 0 and 1, so that a share of 0 takes none and one of 1 takes all; the same each time."""
    assert 0 <= place_of(key) < 1
    assert place_of(key) == place_of(bytes(key))


def test_a_share_is_that_share_of_the_keys() -> None:
    """Also of keys that are numbers in a row, as those of a shop are."""
    places = [place_of(str(number).encode()) for number in range(20_000)]
    for share in (0.01, 0.05, 0.5, 0.9):
        found = sum(place < share for place in places) / len(places)
        assert abs(found - share) < 4 * (share * (1 - share) / len(places)) ** 0.5


def test_a_known_key_keeps_its_place_in_every_release() -> None:
    """Workers of two releases, side by side in a roll-out, must agree."""
    assert round(place_of(b"shop-1"), 9) == 0.951279601


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60), st.lists(st.floats(0.1, 10), max_size=60))
def test_slow_is_never_said_of_a_canary_that_is_not(rates: list[float], stable: list[float]) -> None:
    """Whatever its calls take: only where more than half of enough of them took more than the bound."""
    fallback = CanaryFallback(3.0)
    fallback.look(0.0, unusable="", stable_usable=True, rates=rates, stable_rates=stable)
    enough = min(len(rates), len(stable)) >= FEWEST_CALLS
    slower = enough and sum(rate > 3.0 * max(stable) for rate in rates) * 2 > len(rates)
    faster = not enough or sum(rate <= 3.0 * min(stable) for rate in rates) * 2 > len(rates)
    assert not (slower and fallback.reason is None)
    assert not (faster and fallback.reason == "slow")


def test_a_slow_canary_stays_out_until_somebody_acts() -> None:
    """Its calls are not measured any more, so nothing could show that it is faster now."""
    fallback = CanaryFallback(2.0)
    fallback.look(0.0, unusable="", stable_usable=True, rates=[2.1] * FEWEST_CALLS, stable_rates=FAST)
    assert fallback.reason == "slow"
    assert "2.1 times as long" in fallback.detail
    assert look(fallback, 1e6) == "slow"
    fallback.reset()
    assert look(fallback) is None


def test_an_unavailable_canary_gets_its_share_again_when_it_was_there_for_a_while() -> None:
    """Not at its first answer: a label that comes and goes would send the events to and fro."""
    fallback = CanaryFallback(2.0)
    assert look(fallback, 0.0, "no such label") == "unavailable"
    assert fallback.detail == "no such label"
    assert look(fallback, 1.0) == "unavailable"
    assert look(fallback, 2.0, "no such label") == "unavailable"
    assert look(fallback, 3.0) == "unavailable"
    assert look(fallback, 2.9 + BACK_SECONDS) == "unavailable"
    assert look(fallback, 3.0 + BACK_SECONDS) is None


def test_an_outage_of_both_is_no_fault_of_the_canary() -> None:
    """Its events wait for it as the others do for theirs."""
    fallback = CanaryFallback(2.0)
    assert look(fallback, 0.0, "outage", stable=False) is None
    assert look(fallback, 1.0, "outage", stable=True) == "unavailable"


@given(st.lists(st.booleans(), max_size=400))
def test_refusals_count_only_where_they_are_many(ends: list[bool]) -> None:
    """Both in number and in share, at the moment of one of them."""
    fallback, refused = CanaryFallback(2.0), 0
    for number, each in enumerate(ends, 1):
        refused += each
        before = fallback.reason
        fallback.ended(refused="BatchFault" if each else "")
        if before is None:
            assert (fallback.reason == "refused") == (refused >= FEWEST_REFUSED and refused > MOST_REFUSED * number)


def test_one_refusal_in_a_hundred_is_borne() -> None:
    """For ever: what lies back does not add up."""
    fallback = CanaryFallback(2.0)
    for number in range(20_000):
        fallback.ended(refused="" if number % 100 != 99 else "BatchFault")
    assert fallback.reason is None


SECONDS = st.floats(0.001, 30)


@given(
    st.floats(1.01, 10),
    SECONDS,
    st.integers(0, 100),
    st.lists(SECONDS, max_size=9),
    st.lists(SECONDS, max_size=60),
    st.lists(SECONDS, max_size=9),
)
def test_a_call_hangs_only_where_it_takes_longer_than_the_stable_versions_may(
    slower: float, cost: float, answered: int, rates: list[float], seconds: list[float], under_way: list[float]
) -> None:
    """Never before the floor, nor before ``slower`` times as long as all but few calls of the stable version took, and
    as any has been under way; and at some time it does.
    """
    after = hung_after(
        slower, cost, answered=answered, stable_rates=rates, stable_seconds=seconds, stable_under_way=under_way
    )
    assert after >= (HUNG_SECONDS if answered >= FEWEST_CALLS else COLD_SECONDS)
    assert all(after >= slower * each for each in under_way)
    assert sum(after < slower * each for each in seconds) <= len(seconds) / 20
    usual = cost * max([*rates, 1.0])
    assert after <= max(COLD_SECONDS, slower * max([*seconds, *under_way, usual]))


@given(st.floats(1.01, 10), SECONDS, st.integers(0, 100), st.lists(SECONDS, max_size=20))
def test_a_canary_that_is_as_slow_as_the_stable_version_never_hangs(
    slower: float, under_way: float, answered: int, seconds: list[float]
) -> None:
    """Where a call of the stable version has been under way for as long."""
    after = hung_after(
        slower, 0.1, answered=answered, stable_rates=[], stable_seconds=seconds, stable_under_way=[0.1, under_way]
    )
    assert after > under_way


def test_what_hangs_a_second_time_stays_out() -> None:
    """Its health probes were answered in between, so they say nothing."""
    fallback = CanaryFallback(2.0)
    fallback.hangs("first")
    assert (fallback.reason, fallback.detail) == ("unavailable", "first")
    fallback.hangs("first")
    assert look(fallback, 0.0) == "unavailable"
    assert look(fallback, BACK_SECONDS) is None
    fallback.hangs("second")
    assert (fallback.reason, fallback.detail) == ("slow", "second")
    assert look(fallback, 1e6) == "slow"
    fallback.reset()
    fallback.hangs("third")
    assert fallback.reason == "unavailable"


def test_a_canary_gets_nothing_back_while_a_call_of_it_may_hang() -> None:
    """The time begins anew."""
    fallback = CanaryFallback(2.0)
    fallback.hangs("")
    for now, uncertain in ((0.0, True), (1.0, False), (2.0, True), (3.0, False)):
        fallback.look(now, unusable="", stable_usable=True, rates=(), stable_rates=(), uncertain=uncertain)
    assert look(fallback, 2.9 + BACK_SECONDS) == "unavailable"
    assert look(fallback, 3.0 + BACK_SECONDS) is None


def test_a_canary_that_is_back_a_moment_after_the_stable_version_loses_nothing() -> None:
    """As after a crash of the server that both are on; the time begins when the stable version is back."""
    fallback = CanaryFallback(2.0)

    def missed(now: float, *, stable: bool) -> str | None:
        fallback.look(now, unusable="out", stable_usable=stable, rates=(), stable_rates=(), patience=RETURN_SECONDS)
        return fallback.reason

    assert missed(0.0, stable=False) is None
    assert missed(100.0, stable=True) is None
    assert missed(99.9 + RETURN_SECONDS, stable=True) is None
    assert look(fallback, 101.0) is None
    assert missed(200.0, stable=True) is None
    assert missed(200.0 + RETURN_SECONDS, stable=True) == "unavailable"
    fallback.reset()  # somebody changed its share, while the server is away
    assert missed(300.0, stable=True) is None


def test_one_window_that_ends_the_server_is_enough() -> None:
    """The stable version is on the same one."""
    fallback = CanaryFallback(2.0)
    fallback.ended(refused="Poison", ended_servers=True)
    assert fallback.reason == "refused"
