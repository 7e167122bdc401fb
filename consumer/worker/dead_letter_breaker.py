"""Pauses consumption while a flood of dead letters lasts: a worker's breaker before the dead-letter topic.

Nothing is held and nothing dropped. What is in flight when the flood is seen finishes, and its dead letters are
written: a held one would keep the offsets of its good neighbours from being committed, make every revocation wait, and
end a drain with work undone. So a pause comes after at most ``limits.in_flight_events`` events beyond those that made
it, and one hand-over of the poll thread (256 records) that may be under way. The rest stays in its topic, unread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from consumer.delivery.dead_letter_rate import TRIAL_EVENTS, DeadLetterRate

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.config.tree import DeliveryConfig
    from consumer.events import Outcome, SourceRecord
    from consumer.telemetry.status import FloodStatus

REASON = "flood"

_log = structlog.stdlib.get_logger(__name__)


class Intake(Protocol):
    """What the gate opens and closes; ``KafkaRuntime`` has it. All of it may be called from any thread."""

    def pause(self, reason: str) -> None:
        """Stop consuming for ``reason``."""

    def resume(self, reason: str) -> None:
        """Withdraw ``reason``."""

    def limit(self, records: int | None) -> None:
        """Have at most so many records in flight; None: as many as configured."""


class DeadLetterBreaker:
    """One worker's. Events are counted on the release thread, time on the event loop, an operator comes by HTTP."""

    def __init__(self, delivery: DeliveryConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """``intake`` is to be set before the first event."""
        self.intake: Intake | None = None
        self._dead_letter_topic = delivery.dead_letter_topic
        self._flood = DeadLetterRate(
            delivery.dead_letter_run, delivery.dead_letter_rate, delivery.dead_letter_pause, clock
        )
        self._lock = threading.Lock()

    # The release thread's.

    def ended(self, record: SourceRecord, outcome: Outcome) -> None:
        """All outputs of ``record`` are durable, so it can neither fail any more nor come twice in this assignment.

        ``outcome`` holds what was published: a dead letter where a result was too large for its topic.
        """
        if outcome.kind == "dropped":
            return
        dead = any(output.topic == self._dead_letter_topic for output in outcome.outputs)
        with self._lock:
            flood = self._flood
            if not dead and not flood.dead and flood.state == "flowing" and record.fetched_at >= flood.counts_from:
                flood.counted += 1  # all that ``count`` would do; nearly every event comes this way
                return
            tried = flood.state == "trial"
            if flood.count(record.fetched_at, dead=dead):
                self._changed(again=tried)

    # Any thread's.

    def tick(self) -> None:
        """Begin the trial when the pause is over. To be called about every second."""
        with self._lock:
            if self._flood.state == "paused" and self._flood.wake():
                self._changed()

    def resume(self) -> dict[str, object]:
        """Begin the trial at once, for an operator; what to answer, ready for JSON."""
        with self._lock:
            resumed = self._flood.resume()
            if resumed:
                self._changed()
            state = self._flood.state
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
            flood = self._flood
            reason = flood.why if flood.state != "flowing" else None
            return {"state": flood.state, "reason": reason, "trial_in_seconds": round(flood.seconds_left, 1)}

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
        flood, intake = self._flood, self.intake
        if intake is None:
            raise RuntimeError("An event ended before the gate knew the intake")
        if flood.state == "paused":
            intake.pause(REASON)
            # Already now: the poll thread may be about to use the room that it saw when it comes to resuming.
            intake.limit(TRIAL_EVENTS)
            # One alert a flood: that it goes on is no news.
            (_log.warning if again else _log.error)(
                "too many dead letters: consumption pauses, nothing is dropped",
                reason=flood.why,
                seconds=round(flood.seconds_left, 1),
                fix="see the dead letters' class and message; mend the producer or the task, then `rexstream resume`",
            )
        elif flood.state == "trial":
            intake.resume(REASON)
            _log.info("the flood pause ends with a trial", events=TRIAL_EVENTS)
        else:
            intake.limit(None)
            _log.info("the trial went well: consumption goes on in full")
