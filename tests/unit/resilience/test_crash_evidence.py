"""Which crashes count against a window."""

from __future__ import annotations

import math
import random

import pytest

from consumer.resilience.crash_evidence import (
    AWAY_SECONDS,
    CRASHES,
    PROVEN_ALONE,
    SUSPECTED_AFTER,
    UNSEEN_AFTER,
    UPTIME_CALLS,
    UPTIME_SECONDS,
    UPTIME_SHARE,
    CrashEvidence,
    ServerUptime,
)


class History:
    """A server, one window, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.uptime = ServerUptime()
        self.window = CrashEvidence()
        self.window.notice_unrelated(self.uptime)  # as when it is isolated

    def live(self, calls: int = UPTIME_CALLS, seconds: float = 1.01 * UPTIME_SECONDS, busy: float = 0.5) -> None:
        """Evenly over ``seconds``, of which it is in calls for the share ``busy``."""
        self.uptime.answered(self.now, self.now, 1)
        for _ in range(calls):
            began = self.now
            self.now += seconds / calls
            self.uptime.answered(self.now - busy * (self.now - began), self.now, 1)

    def crash(self, seconds: float = 0.01) -> None:
        self.window.sent_isolated(self.uptime, self.now)
        self.now += seconds
        self.uptime.failed(self.now, isolated=True)
        self.window.broke_off(seconds, isolated=True)

    def dies(self) -> None:
        """And is away for a second, which no window is to blame for."""
        self.uptime.failed(self.now, isolated=False)
        self.now += AWAY_SECONDS


def test_five_crashes_of_a_server_that_lived_without_the_window_make_poison() -> None:
    """Neither fewer, nor any without."""
    history = History()
    for number in range(1, CRASHES + 1):
        assert history.window.crashes < CRASHES
        history.live()
        history.crash()
        history.crash()  # at once after it: the server has shown nothing
        assert history.window.crashes == number
    assert history.window.crashes >= CRASHES


def test_a_server_that_lived_too_short_without_the_window_proves_nothing() -> None:
    """In time, in calls, or in the time within calls."""
    for calls, seconds, busy, lasted in (
        (UPTIME_CALLS, UPTIME_SECONDS * 0.9, 0.5, 0.01),
        (UPTIME_CALLS // 2, UPTIME_SECONDS, 0.5, 0.01),
        (UPTIME_CALLS, 100.0, 0.5, 51 / UPTIME_SHARE),
    ):
        history = History()
        history.window.longest = lasted
        history.live(calls, seconds, busy)
        history.crash(lasted)
        assert history.window.crashes == 0


def test_a_death_at_any_other_moment_starts_the_count_anew() -> None:
    """Also one that the window learns of only when it is tried again."""
    history = History()
    for _ in range(CRASHES - 1):
        history.live()
        history.crash()
    history.live()
    history.dies()
    history.live()
    history.crash()
    assert history.window.crashes == 1


def test_the_last_crash_counts_only_beside_a_real_window() -> None:
    """A server that dies of all of them is broken; it is tried rarely, until one is answered."""
    history = History()
    for _ in range(CRASHES - 1):
        history.live()
        history.crash()
    history.window.draw_pause(history.uptime, lambda low, _: low)
    for _ in range(2 * UPTIME_CALLS):
        history.now += UPTIME_SECONDS
        history.uptime.answered(history.now - 1, history.now, 0)
    since = history.uptime.up_since
    assert since is not None
    assert history.window.ready_at(history.uptime) == since + 300
    history.crash()
    assert history.window.crashes == CRASHES - 1
    history.live()
    assert history.uptime.up_since is not None
    assert history.window.ready_at(history.uptime) == history.uptime.up_since + 3
    history.crash()
    assert history.window.crashes >= CRASHES


def test_the_pause_grows_with_the_deaths_of_others_and_the_length_of_its_call() -> None:
    """Others come first, and (d) needs its time."""

    def pause() -> float:
        history.live()
        history.window.draw_pause(history.uptime, lambda low, _: low)
        ready_at, since = history.window.ready_at(history.uptime), history.uptime.up_since
        assert since is not None
        return ready_at - since

    history = History()
    pauses = [pause()]
    for _ in range(6):
        history.dies()
        assert history.window.ready_at(history.uptime) == math.inf, "not before it is back"
        history.live()
        history.window.notice_unrelated(history.uptime)
        pauses.append(pause())
    assert pauses == [3, 6, 12, 15, 15, 15, 15]
    history.window.longest = 20.0
    assert pause() == 160
    history.window.draw_pause(history.uptime, lambda _, high: high)
    assert history.uptime.up_since is not None
    assert history.window.ready_at(history.uptime) == history.uptime.up_since + 320, "up to twice as long"


def test_a_failure_too_short_for_an_end_of_the_server_starts_the_count_anew_but_makes_no_pause_longer() -> None:
    """A network that loses calls says nothing for the window, and nothing about how long the server needs."""
    history = History()
    history.live()
    history.crash()
    for _ in range(20):
        history.uptime.answered(history.now, history.now, 1)
        history.uptime.failed(history.now, isolated=False)
        history.uptime.answered(history.now, history.now, 1)
        history.window.notice_unrelated(history.uptime)
    assert history.window.crashes == history.window.cleared == 0


def test_a_group_is_isolated_after_its_second_broken_call_if_the_server_was_away() -> None:
    """And after more of them if it was not; neither by the first, which most calls survive when sent again."""
    for away, calls in ((True, SUSPECTED_AFTER), (False, UNSEEN_AFTER)):
        window = CrashEvidence()
        isolated = []
        for _ in range(UNSEEN_AFTER):
            window.broke_off(0.01, isolated=False)
            isolated.append(window.server_is_back(away=away))
        assert isolated.index(True) == calls - 1
        assert not window.proven


def test_only_a_window_that_was_alone_when_the_server_went_away_is_proven() -> None:
    """Once is enough; while the server answers on, it takes five."""
    for away, calls in ((True, 1), (False, PROVEN_ALONE)):
        window = CrashEvidence(broken=UNSEEN_AFTER)
        for number in range(1, calls + 1):
            assert not window.proven
            window.broke_off(0.01, isolated=True)
            window.server_is_back(away=away)
            assert window.proven is (number == calls)


def test_time_in_calls_that_overlap_is_counted_once() -> None:
    """Two workers of one server do not make it live for longer."""
    uptime = ServerUptime()
    uptime.answered(0.0, 1.0, 1)
    for began, ended in ((1.0, 3.0), (2.0, 3.0), (1.5, 4.0), (5.0, 6.0)):
        uptime.answered(began, ended, 1)
    assert uptime.in_flight_seconds == 4.0
    assert uptime.calls == 5
    uptime.failed(7.0, isolated=False)
    uptime.failed(8.0, isolated=False)
    assert uptime.unrelated_crashes == 1, "while it is away it cannot go away"
    uptime.answered(9.0, 9.5, 0)
    assert (uptime.away_seconds, uptime.in_flight_seconds, uptime.real_windows) == (2.5, 0.0, 0)


@pytest.mark.parametrize("mean_life", [0.5, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("call", [0.01, 0.5, 5.0])
def test_deaths_at_random_do_not_add_up(mean_life: float, call: float) -> None:
    """A thousand tries of a window that nobody ever answers, beside a server that dies all the time: the count stays
    below the limit, since most deaths come while the server is watched without it."""
    draw = random.Random(7)
    history = History()
    record, uptime = history.window, history.uptime
    most = 0
    uptime.answered(history.now, history.now, 1)
    dies_at = history.now + draw.expovariate(1 / mean_life)
    for _ in range(1000):
        record.notice_unrelated(uptime)
        record.draw_pause(uptime, draw.uniform)
        history.now += 0.001
        uptime.answered(history.now, history.now, 1)
        while True:
            ready_at = record.ready_at(uptime)
            if history.now >= ready_at and not record.needs_uptime(uptime):
                break
            history.now += 0.25
            if history.now >= dies_at:
                history.dies()
                record.notice_unrelated(uptime)
                record.draw_pause(uptime, draw.uniform)
                dies_at = history.now + draw.expovariate(1 / mean_life)
                if record.cleared > 4:
                    break
            uptime.answered(history.now - 0.2, history.now, 1)
        if history.now + call >= dies_at:
            history.crash(max(0.0, dies_at - history.now))
            dies_at = history.now + draw.expovariate(1 / mean_life)
        most = max(most, record.crashes)
    assert most < CRASHES


def test_what_another_version_gave_up_needs_one_crash_whatever_else_ends_the_server() -> None:
    """Such as its next poison window; and there may be no real window here. First the server must be seen alive."""
    history = History()
    history.window = CrashEvidence(crashes=CRASHES - 1, alone=CRASHES, broken=CRASHES, proven=True, given_up=True)
    history.window.notice_unrelated(history.uptime)
    history.live()
    history.dies()
    history.crash()
    assert history.window.crashes == CRASHES - 1
    for _ in range(UPTIME_CALLS + 1):
        history.uptime.answered(history.now, history.now + 1, 0)
        history.now += 1
    history.crash()
    assert history.window.crashes == CRASHES
