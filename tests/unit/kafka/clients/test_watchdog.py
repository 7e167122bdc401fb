"""When a thread counts as hung, and when it does not."""

from __future__ import annotations

import pytest

from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.clients.watchdog import Watchdog, WatchedThread


class Bench:
    """Two threads that come round when they should, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rounds = {"poll": 0.0, "release": 0.0}
        self.fatal: list[BaseException] = []
        self.hangs: list[tuple[str, int]] = []
        threads = [
            WatchedThread("poll", lambda: self.rounds["poll"], 10.0),
            WatchedThread("release", lambda: self.rounds["release"], 5.0),
        ]
        self.watch = Watchdog(
            threads, lambda why: self.hangs.append((why, len(self.fatal))), self.fatal.append, lambda: self.now
        )

    def run(self, seconds: int, *running: str, step: float = 1.0) -> bool:
        """Look so many times, ``step`` apart, while these threads come round; whether a look found one that hangs."""
        found = False
        for _ in range(seconds):
            self.now += step
            for name in running:
                self.rounds[name] = self.now
            found = self.watch.look() or found
        return found


def test_threads_that_come_round_are_left_alone() -> None:
    """However long, and also when now and then one takes nearly as long as it may."""
    bench = Bench()
    for _ in range(20):
        assert not bench.run(5, "poll")
        assert not bench.run(1, "poll", "release")
    assert not bench.fatal
    assert not bench.hangs


@pytest.mark.parametrize(("running", "name", "limit"), [("poll", "release", 5), ("release", "poll", 10)])
def test_one_that_does_not_come_round_ends_the_worker(running: str, name: str, limit: int) -> None:
    """After its own limit; what is logged names it."""
    bench = Bench()
    assert not bench.run(limit, running)
    assert bench.run(1, running)
    (error,) = bench.fatal
    assert isinstance(error, ClientFailed)
    assert f"The {name} thread" in str(error)
    ((why, fatal_before),) = bench.hangs
    assert f"The {name} thread" in why
    assert fatal_before == 0, "stacks are logged before anything is done about them"


def test_time_in_which_the_whole_process_stood_still_does_not_count() -> None:
    """SIGSTOP for an hour: at SIGCONT the watch may well come round before the threads do."""
    bench = Bench()
    assert not bench.run(1, "poll", "release")
    assert not bench.run(2, step=3600.0)
    assert not bench.run(1, "poll", "release")
    assert not bench.fatal
