"""Pauses consumption while a flood of dead letters lasts: a worker's circuit breaker before the dead-letter topic.

``delivery.dead_letter_rate`` decides; the breaker counts the events whose outputs are durable there, pauses and resumes
the Kafka runtime as it decides, and answers ``/status``, ``/readyz`` and ``POST /resume``.

Nothing is held and nothing dropped. What is in flight when the flood is detected finishes, and its dead letters are
written: a held dead letter would keep offsets of good records from being committed, make every revocation wait, and
leave a drain unfinished. So at most ``limits.in_flight_events`` events, and one hand-over of the poll thread (256
records) that may be under way, follow those that caused the pause. All other records stay in their topic, unread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from consumer.delivery.dead_letter_rate import TRIAL_EVENTS, DeadLetterRate

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.config.tree import DeliveryConfig
    from consumer.events import Outcome, SourceRecord
    from consumer.kafka.runtime import KafkaRuntime
    from consumer.telemetry.status import FloodStatus

REASON = "flood"

_log = structlog.stdlib.get_logger(__name__)


class DeadLetterBreaker:
    """Thread-safe: the release thread counts events, the event loop ends pauses, the HTTP server's threads resume."""

    def __init__(self, delivery: DeliveryConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.runtime: KafkaRuntime | None = None
        """To be set before the first event."""
        self._dead_letter_topic = delivery.dead_letter_topic
        self._rate = DeadLetterRate(
            delivery.dead_letter_run, delivery.dead_letter_rate, delivery.dead_letter_pause, clock
        )
        self._lock = threading.Lock()

    # Called on the release thread.

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:
        """Count ``record``, whose outputs are durable: it can neither fail any more nor come twice in this assignment.

        ``outcome`` holds what was published: a dead letter where a result was too large for its topic.
        """
        if outcome.kind == "dropped":
            return
        dead = any(output.topic == self._dead_letter_topic for output in outcome.outputs)
        with self._lock:
            rate = self._rate
            if not dead and not rate.dead and rate.state == "flowing" and record.fetched_at >= rate.counts_from:
                rate.counted += 1  # all that ``count`` would do; nearly every event comes this way
                return
            tried = rate.state == "trial"
            if rate.count(record.fetched_at, dead=dead):
                self._changed(again=tried)

    # Called from any thread.

    def tick(self) -> None:
        """Begin the trial when the pause is over. To be called about every second."""
        with self._lock:
            if self._rate.state == "paused" and self._rate.wake():
                self._changed()

    def resume(self) -> dict[str, object]:
        """Begin the trial at once, for an operator; what to answer, ready for JSON."""
        with self._lock:
            resumed = self._rate.resume()
            if resumed:
                self._changed()
            state = self._rate.state
        if resumed:
            message = f"a trial of {TRIAL_EVENTS} events decides whether consumption goes on in full"
        elif state == "trial":
            message = "nothing to resume: the trial after a flood of dead letters is under way"
        else:
            message = "nothing to resume: consumption is not paused for a flood of dead letters"
        return {"resumed": [REASON] if resumed else [], "state": state, "message": message}

    def status(self) -> FloodStatus:
        """For /status."""
        with self._lock:
            rate = self._rate
            reason = rate.why if rate.state != "flowing" else None
            return {"state": rate.state, "reason": reason, "trial_in_seconds": round(rate.seconds_left, 1)}

    def unready(self) -> str | None:
        """Why the worker is not ready, in words; None when it consumes. In a trial it does."""
        status = self.status()
        if status["state"] != "paused":
            return None
        return (
            f"paused, {status['reason']}: tried again in {status['trial_in_seconds']:.0f} s, or at once with"
            " `rexstream resume`"
        )

    def _changed(self, *, again: bool = False) -> None:
        rate, runtime = self._rate, self.runtime
        if runtime is None:
            raise RuntimeError("An event was durable before the breaker knew the Kafka runtime")
        if rate.state == "paused":
            runtime.pause(REASON)
            # Set before consumption resumes: the poll thread might otherwise still fill the full bounds.
            runtime.limit(TRIAL_EVENTS)
            # One error line, and so one alert, for each flood; a pause that is repeated is logged as a warning.
            (_log.warning if again else _log.error)(
                "too many dead letters: consumption pauses, nothing is dropped",
                reason=rate.why,
                seconds=round(rate.seconds_left, 1),
                fix="see the dead letters' class and message; mend the producer or the task, then `rexstream resume`",
            )
        elif rate.state == "trial":
            runtime.resume(REASON)
            _log.info("the flood pause ends with a trial", events=TRIAL_EVENTS)
        else:
            runtime.limit(None)
            _log.info("the trial went well: consumption goes on in full")
