"""Which crashes count against a window."""

from __future__ import annotations

import random

import pytest

from consumer.resilience.crash_evidence import (
    CONTROL_CALLS,
    CONTROL_SECONDS,
    CONTROL_SHARE,
    CRASHES,
    CrashEvidence,
    ServerUptime,
)


class History:
    """A server, one window, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.exposure = ServerUptime()
        self.window = CrashEvidence()

    def control(self, calls: int = CONTROL_CALLS, seconds: float = 1.01 * CONTROL_SECONDS, busy: float = 0.5) -> None:
        """Evenly over ``seconds``, of which it is in calls for the share ``busy``."""
        self.exposure.answered(self.now, self.now, 1)
        for _ in range(calls):
            began = self.now
            self.now += seconds / calls
            self.exposure.answered(self.now - busy * (self.now - began), self.now, 1)

    def crash(self, seconds: float = 0.01) -> None:
        self.window.tried(self.exposure, self.now)
        self.now += seconds
        self.exposure.failed(self.now, suspect_alone=True)
        self.window.broke_off(seconds, alone=True)

    def dies(self) -> None:
        self.exposure.failed(self.now, suspect_alone=False)


def test_five_crashes_each_after_its_control_make_poison() -> None:
    """Neither fewer, nor any without."""
    history = History()
    for number in range(1, CRASHES + 1):
        assert not history.window.poison
        history.control()
        history.crash()
        history.crash()  # at once after it: the server has shown nothing
        assert history.window.crashes == number
    assert history.window.poison


def test_a_control_that_is_too_short_is_none() -> None:
    """In time, in calls, or in the time within calls."""
    for calls, seconds, busy, lasted in (
        (CONTROL_CALLS, CONTROL_SECONDS * 0.9, 0.5, 0.01),
        (CONTROL_CALLS // 2, CONTROL_SECONDS, 0.5, 0.01),
        (CONTROL_CALLS, 100.0, 0.5, 51 / CONTROL_SHARE),
    ):
        history = History()
        history.window.longest = lasted
        history.control(calls, seconds, busy)
        history.crash(lasted)
        assert history.window.crashes == 0


def test_a_death_at_any_other_moment_starts_the_count_anew() -> None:
    """Also one that the window learns of only when it is tried again."""
    history = History()
    for _ in range(CRASHES - 1):
        history.control()
        history.crash()
    history.control()
    history.dies()
    history.control()
    history.crash()
    assert history.window.crashes == 1


def test_another_failure_in_its_own_call_starts_the_count_anew() -> None:
    """In a row means that."""
    history = History()
    history.control()
    history.crash()
    history.window.ended_otherwise()
    assert history.window.crashes == 0


def test_the_last_crash_counts_only_beside_a_real_window() -> None:
    """A server that dies of all of them is broken; it is tried rarely, until one is answered."""
    history = History()
    for _ in range(CRASHES - 1):
        history.control()
        history.crash()
    history.window.rest(history.exposure, lambda low, _: low)
    for _ in range(2 * CONTROL_CALLS):
        history.now += CONTROL_SECONDS
        history.exposure.answered(history.now - 1, history.now, 0)
    since = history.exposure.up_since
    assert since is not None
    assert history.window.ready_at(history.exposure) == since + 300
    history.crash()
    assert history.window.crashes == CRASHES - 1
    history.control()
    assert history.exposure.up_since is not None
    assert history.window.ready_at(history.exposure) == history.exposure.up_since + CONTROL_SECONDS
    history.crash()
    assert history.window.poison


def test_the_pause_grows_with_the_deaths_of_others_and_the_length_of_its_call() -> None:
    """Others get the next turns, and (d) needs its time."""

    def pause() -> float:
        history.control()
        history.window.rest(history.exposure, lambda low, _: low)
        ready_at, since = history.window.ready_at(history.exposure), history.exposure.up_since
        assert ready_at is not None
        assert since is not None
        return ready_at - since

    history = History()
    pauses = [pause()]
    for _ in range(6):
        history.dies()
        assert history.window.ready_at(history.exposure) is None, "not before it is back"
        history.window.outside(history.exposure)
        pauses.append(pause())
    assert pauses == [3, 6, 12, 24, 48, 60, 60]
    history.window.longest = 20.0
    assert pause() == 160
    history.window.rest(history.exposure, lambda _, high: high)
    assert history.exposure.up_since is not None
    assert history.window.ready_at(history.exposure) == history.exposure.up_since + 320, "up to twice as long"


def test_time_in_calls_that_overlap_is_counted_once() -> None:
    """Two workers of one server do not make it live for longer."""
    exposure = ServerUptime()
    exposure.answered(0.0, 1.0, 1)
    for began, ended in ((1.0, 3.0), (2.0, 3.0), (1.5, 4.0), (5.0, 6.0)):
        exposure.answered(began, ended, 1)
    assert exposure.in_flight_seconds == 4.0
    assert exposure.calls == 5
    exposure.failed(7.0, suspect_alone=False)
    exposure.failed(8.0, suspect_alone=False)
    assert exposure.strangers == 1, "while it is away it cannot go away"
    exposure.answered(9.0, 9.5, 0)
    assert (exposure.away_seconds, exposure.in_flight_seconds, exposure.real_windows) == (2.5, 0.0, 0)


@pytest.mark.parametrize("mean_life", [0.5, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("call", [0.01, 0.5, 5.0])
def test_deaths_at_random_do_not_add_up(mean_life: float, call: float) -> None:
    """A thousand tries of a window that nobody ever answers, beside a server that dies all the time: the count stays
    below the limit, since most deaths come while the server is watched without it."""
    draw = random.Random(7)
    history = History()
    record, exposure = history.window, history.exposure
    most = 0
    exposure.answered(history.now, history.now, 1)
    dies_at = history.now + draw.expovariate(1 / mean_life)
    for _ in range(1000):
        record.outside(exposure)
        record.rest(exposure, draw.uniform)
        history.now += 0.001
        exposure.answered(history.now, history.now, 1)
        while True:
            ready_at = record.ready_at(exposure)
            if ready_at is not None and history.now >= ready_at and not record.needs_exposure(exposure):
                break
            history.now += 0.25
            if history.now >= dies_at:
                history.dies()
                record.outside(exposure)
                record.rest(exposure, draw.uniform)
                dies_at = history.now + draw.expovariate(1 / mean_life)
                if record.cleared > 4:
                    break
            exposure.answered(history.now - 0.2, history.now, 1)
        if history.now + call >= dies_at:
            history.crash(max(0.0, dies_at - history.now))
            dies_at = history.now + draw.expovariate(1 / mean_life)
        most = max(most, record.crashes)
    assert most < CRASHES
