"""When a client is given up: only after brokers answered others, and not it, for a while without a break."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.clients.watchdog import QUIET_SECONDS, STALL_LOOK_SECONDS, STALLED_SECONDS, StuckClientDetector


class Bench:
    """A client, brokers and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.own = False
        self.others = True
        self.asked = 0
        self.stalled = StuckClientDetector(self.ask, lambda: self.others, lambda: self.now)

    def ask(self) -> None:
        self.asked += 1
        if not self.own:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def run(self, seconds: float) -> bool:
        """Look every second; whether any look said so."""
        found = False
        for _ in range(int(seconds)):
            found = self.stalled.look() or found
            self.now += 1.0
        return found


def test_it_takes_a_quiet_time_and_then_answers_to_others_for_a_while() -> None:
    """And brokers are not asked more often than every few seconds."""
    bench = Bench()
    assert not bench.run(QUIET_SECONDS + STALLED_SECONDS)
    assert bench.asked == int(STALLED_SECONDS / STALL_LOOK_SECONDS)
    assert bench.run(STALL_LOOK_SECONDS)


@pytest.mark.parametrize(("name", "meanwhile"), [("own", True), ("others", False)])
def test_one_answer_or_one_look_without_brokers_begins_anew(name: str, meanwhile: bool) -> None:
    """Brokers that have just come back are not held against a client."""
    bench = Bench()
    assert not bench.run(QUIET_SECONDS + STALLED_SECONDS)
    setattr(bench, name, meanwhile)
    assert not bench.run(STALL_LOOK_SECONDS)
    setattr(bench, name, not meanwhile)
    assert not bench.run(STALLED_SECONDS)
    assert bench.run(STALL_LOOK_SECONDS)


def test_a_client_that_works_again_has_all_of_its_time_again() -> None:
    """What was noted before is forgotten."""
    bench = Bench()
    assert not bench.run(QUIET_SECONDS + STALLED_SECONDS)
    bench.stalled.worked_at = bench.now
    assert not bench.run(QUIET_SECONDS + STALLED_SECONDS)
    assert bench.run(STALL_LOOK_SECONDS)


def test_a_client_that_works_is_not_asked() -> None:
    """Nothing is asked of brokers on its account."""
    bench = Bench()
    for _ in range(100):
        bench.stalled.worked_at = bench.now
        assert not bench.run(QUIET_SECONDS)
    assert bench.asked == 0
