"""Which events are the canary's, and when it loses them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.resilience.canary import (
    BACK_SECONDS,
    FEWEST_CALLS,
    FEWEST_REFUSED,
    MOST_REFUSED,
    CanaryFallback,
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
