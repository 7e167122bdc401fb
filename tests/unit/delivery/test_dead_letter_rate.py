from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.delivery.dead_letter_rate import (
    EXAMPLES,
    LONGEST_PAUSE,
    MIN_EVENTS,
    TRIAL_EVENTS,
    WINDOW_EVENTS,
    DeadLetterRate,
)

PAUSE = 60.0


class World:
    """A rate with its clock. Events are fetched when they end, unless a test says otherwise."""

    def __init__(self, run: int | None = 5, rate: float | None = 0.2) -> None:
        self.now = 1000.0
        self.rate = DeadLetterRate(run, rate, PAUSE, lambda: self.now)

    def state(self) -> str:
        """A call: the type checker takes an attribute for unchanged."""
        return self.rate.state

    def end(self, dead: str) -> None:
        """One event for each letter: ``x`` dead, ``.`` good."""
        for letter in dead:
            self.rate.count(self.now, dead=letter == "x")

    def paused(self) -> World:
        """By a run."""
        self.end("xxxxxx")
        assert self.state() == "paused"
        return self

    def in_trial(self) -> World:
        """At the end of a pause."""
        self.paused()
        self.now += self.rate.seconds_left
        assert self.rate.wake()
        return self


def test_more_dead_events_in_a_row_than_the_run_pause() -> None:
    """The run itself is allowed; the next one is too many, and is said."""
    world = World()
    world.end("xxxxx")
    assert world.state() == "flowing"
    assert world.rate.count(world.now, dead=True)
    assert world.state() == "paused"
    assert world.rate.why == "6 events in a row ended in dead letters"
    assert world.rate.seconds_left == PAUSE


def test_a_good_event_ends_a_run() -> None:
    """What is not in a row is for the rate."""
    world = World(rate=None)
    world.end("xxxxx." * 100)
    assert world.state() == "flowing"


def test_a_larger_share_than_the_rate_pauses() -> None:
    """Just the share is allowed, one more is not; one good event more than it takes keeps the flow."""
    world = World(run=None)
    world.end("....x" * 20)
    assert world.state() == "flowing"
    world.end("x")
    assert world.state() == "paused"
    assert world.rate.why == "21 of the last 101 events ended in dead letters"


def test_a_quiet_topic_is_not_paused_by_one_bad_record() -> None:
    """No share below a hundred events, and after that one dead letter is within the lowest rate there is."""
    world = World(run=None, rate=0.01)
    world.end("x" * (MIN_EVENTS - 1))
    assert world.state() == "flowing"
    world = World(run=None, rate=0.01)
    world.end("x" + "." * MIN_EVENTS)
    assert world.state() == "flowing"


def test_the_rate_forgets_what_is_long_past() -> None:
    """A good day does not hide that a producer broke just now, nor a bad morning weigh for ever."""
    world = World(run=None)
    world.end(".....x" * WINDOW_EVENTS)
    assert world.state() == "flowing"
    world.end("." * WINDOW_EVENTS)
    world.end("x." * 199)
    assert world.state() == "flowing"
    world.end("x.x")
    assert world.state() == "paused"


def test_both_can_be_switched_off() -> None:
    """Then nothing pauses."""
    world = World(run=None, rate=None)
    world.end("x" * 5000)
    assert world.state() == "flowing"


def test_what_was_in_flight_neither_extends_a_pause_nor_decides_the_trial() -> None:
    """Dead letters of events fetched before the trial say nothing about what the topic holds now."""
    world = World().paused()
    fetched = world.now
    world.now += 10
    for _ in range(2000):
        assert not world.rate.count(fetched, dead=True)
    assert world.rate.seconds_left == PAUSE - 10
    world.now += PAUSE - 10
    assert world.rate.wake()
    for dead in (True, False) * 500:
        assert not world.rate.count(fetched, dead=dead)
    assert world.state() == "trial"
    world.end("." * TRIAL_EVENTS)
    assert world.state() == "flowing"
    for _ in range(100):
        assert not world.rate.count(fetched, dead=True)


def test_a_pause_lasts_its_time() -> None:
    """Waking before is without effect, and so is waking when there is no pause."""
    world = World()
    assert not world.rate.wake()
    world.paused()
    world.now += PAUSE - 0.001
    assert not world.rate.wake()
    assert world.state() == "paused"
    world.now += 0.001
    assert world.rate.wake()
    assert world.state() == "trial"
    assert not world.rate.wake()


def test_an_operator_ends_a_pause_and_nothing_else() -> None:
    """The trial comes first then too."""
    world = World()
    assert not world.rate.resume()
    world.paused()
    assert world.rate.resume()
    assert world.state() == "trial"
    assert not world.rate.resume()


@pytest.mark.parametrize(
    ("rate", "trial", "state"),
    [
        (0.2, "." * 16, "flowing"),
        (0.2, "x.x.x.x" + "." * 12, "trial"),
        (0.2, "x.x.x.x" + "." * 13, "flowing"),
        (0.2, "x.x.x.x.x", "paused"),
        (0.01, "x.x.x", "paused"),
        (0.01, "x.x" + "." * 17, "flowing"),
        (None, "xx." * 5, "trial"),
        (None, "xx." * 5 + "x", "paused"),
        (None, "xxxxxx", "paused"),
    ],
)
def test_a_trial_goes_by_the_rate_and_allows_two(rate: float | None, trial: str, state: str) -> None:
    """Without a rate half is allowed; a row as long as the run's ends it in any case."""
    world = World(rate=rate).in_trial()
    world.end(trial)
    assert world.state() == state


def test_a_good_trial_starts_with_a_clean_sheet() -> None:
    """Neither what was counted before the pause nor the trial itself counts in the next rate."""
    world = World().in_trial()
    world.end("x.x.x.x" + "." * 13)
    world.end("x...." * 16 + "x..")
    assert world.state() == "flowing"


def test_pauses_double_while_trials_fail_up_to_a_bound() -> None:
    """A producer that stays broken overnight costs a few dead letters in every pause, not one pause a minute."""
    world = World().in_trial()
    lengths = []
    for _ in range(50):
        world.end("xxxxxx")
        lengths.append(world.rate.seconds_left / PAUSE)
        world.now += world.rate.seconds_left
        assert world.rate.wake()
    assert lengths[:5] == [2, 4, 8, 16, 16]
    assert set(lengths[5:]) == {LONGEST_PAUSE}


def test_a_trial_that_fails_doubles_the_pause_however_long_it_took() -> None:
    """On a quiet topic its events may come hours later."""
    world = World().in_trial()
    world.now += 10 * LONGEST_PAUSE * PAUSE
    world.end("xxxxxx")
    assert world.rate.seconds_left == 2 * PAUSE


def test_a_flood_that_passes_trials_and_comes_back_grows_its_pauses_too() -> None:
    """A share of three in ten may show no such share in twenty events. One that comes back late is another flood."""
    world = World().in_trial()
    world.end("." * TRIAL_EVENTS)
    world.now += PAUSE * LONGEST_PAUSE - 1
    world.end("xxxxxx")
    assert world.rate.seconds_left == 2 * PAUSE
    assert world.rate.resume()
    world.end("." * TRIAL_EVENTS)
    world.now += PAUSE * LONGEST_PAUSE
    world.end("xxxxxx")
    assert world.rate.seconds_left == PAUSE


@given(st.lists(st.booleans(), max_size=1200), st.integers(1, 30), st.sampled_from((None, 0.01, 0.2, 0.5)))
@example([True] * 30 + [False] * 1100, 30, 0.01)
@example([number % 100 == 0 for number in range(1, 1101)], 30, 0.01)
def test_it_pauses_at_the_first_event_that_exceeds_run_or_rate_and_not_before(
    events: list[bool], run: int, rate: float | None
) -> None:
    """Against counting everything anew at each event."""
    world = World(run, rate)
    for number, dead in enumerate(events, 1):
        seen = events[:number]
        row = next((back for back, each in enumerate(reversed(seen)) if not each), number)
        window = seen[-WINDOW_EVENTS:]
        too_many = rate is not None and len(window) >= MIN_EVENTS and sum(window) > rate * len(window)
        changed = world.rate.count(world.now, dead=dead)
        assert changed == (row > run or too_many)
        if changed:
            return


STEPS = st.sampled_from(("good", "dead", "late", "wake", "resume"))


@given(st.lists(st.tuples(STEPS, st.floats(0, 200)), max_size=300))
def test_whatever_happens_every_pause_ends_and_leads_into_a_trial(steps: list[tuple[str, float]]) -> None:
    """No event shortens or lengthens a pause; only its time or an operator ends it; flow comes by a trial alone."""
    world = World(run=2)
    rate = world.rate
    for step, seconds in steps:
        before, left = rate.state, rate.seconds_left
        world.now += seconds
        if step == "wake":
            assert rate.wake() == (before == "paused" and left <= seconds)
        elif step == "resume":
            assert rate.resume() == (before == "paused")
        else:
            changed = rate.count(world.now - (5000 if step == "late" else 0), dead=step != "good")
            assert changed == (rate.state != before)
        assert (before, rate.state) not in {("paused", "flowing"), ("flowing", "trial")}
        if before == rate.state == "paused":
            assert rate.seconds_left == pytest.approx(max(0.0, left - seconds), abs=1e-6)
        assert rate.seconds_left <= LONGEST_PAUSE * PAUSE
        assert bool(rate.seconds_left) <= (rate.state == "paused")


def test_what_is_told_of_a_flood_is_bounded() -> None:
    """However many events are dead, for ever: the classes of one window, and the last places."""
    world = World(run=None, rate=None)
    for number in range(5 * WINDOW_EVENTS):
        world.rate.count(world.now, dead=number % 3 > 0, classes=(f"C{number}",), place=f"in-0@{number}")
    assert len(world.rate._classes) == len(world.rate.dead) <= WINDOW_EVENTS
    assert len(world.rate._places) == EXAMPLES
    assert world.rate.classes == {}
