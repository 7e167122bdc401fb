"""Good events are cheap for the breaker, and count all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import example, given
from hypothesis import strategies as st

from consumer.config.tree import DeliveryConfig
from consumer.delivery.dead_letter_rate import DeadLetterRate
from consumer.events import Outcome, Output, SourceRecord
from consumer.worker.dead_letter_breaker import DeadLetterBreaker

if TYPE_CHECKING:
    from consumer.kafka.runtime import KafkaRuntime

GOOD = Outcome("done", (Output("reviews.extracted", None, b"{}"),))
DEAD = Outcome("done", (Output("reviews.dead", None, b"{"),))


class Runtime:
    """Takes every call."""

    def pause(self, reason: str, topics: list[str]) -> None:
        pass

    def limit(self, topic: str, records: int | None) -> None:
        pass


@given(
    st.lists(st.tuples(st.sampled_from(("good", "dead", "late", "resume")), st.integers(1, 1100)), max_size=20),
    st.sampled_from((None, 3, 150)),
    st.sampled_from((None, 0.01, 0.2, 0.5)),
)
@example([("dead", 50), ("good", 49), ("good", 1)], None, 0.2)
@example([("dead", 4), ("resume", 1), ("good", 20), ("late", 99), ("dead", 60)], None, 0.01)
@example([("dead", 4), ("resume", 1), ("good", 20), ("late", 99), ("dead", 3)], 3, 0.2)
@example([("dead", 101), ("resume", 1), ("good", 20), ("late", 60), ("dead", 60)], None, 0.2)
def test_every_decision_is_that_of_counting_each_event(
    steps: list[tuple[str, int]], run: int | None, rate: float | None
) -> None:
    """Also for good events that were fetched before a trial and come after it: they are not counted."""
    now = 0.0

    def clock() -> float:
        return now

    breaker = DeadLetterBreaker(
        DeliveryConfig(dead_letter_run=run, dead_letter_rate=rate, dead_letter_pause=60.0), ("reviews.raw",), clock
    )
    breaker.runtime = cast("KafkaRuntime", Runtime())
    counting = DeadLetterRate(run, rate, 60.0, clock)
    for step, times in steps:
        for offset in range(1 if step == "resume" else times):
            now += 0.1
            fetched_at = now - (5000 if step == "late" else 0)
            if step == "resume":
                breaker.resume()
                counting.resume()
            else:
                record = SourceRecord("reviews.raw", 0, offset, 1, None, b"{", (), None, fetched_at)
                breaker.durable(record, DEAD if step == "dead" else GOOD)
                counting.count(fetched_at, dead=step == "dead")
            reason = None if counting.state == "flowing" else counting.why
            shown = breaker.status()
            assert (shown["state"], shown["reason"]) == (counting.state, reason)
