"""Pauses an input topic while a flood of dead letters lasts: a worker's circuit breaker before the dead-letter topic.

``delivery.dead_letter_rate`` decides, for each input topic by itself; the breaker counts the events whose outputs are
durable there, pauses and resumes the topic as it decides, and answers ``/status``, ``/readyz`` and ``POST /resume``.

Nothing is held and nothing dropped. What is in flight when the flood is detected finishes, and its dead letters are
written: a held dead letter would keep offsets of good records from being committed, make every revocation wait, and
leave a drain unfinished. So at most ``limits.in_flight_events`` events, and one hand-over of the poll thread (256
records) that may be under way, follow those that caused the pause. All other records stay in their topic, unread, and
all other topics go on.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from consumer.config.inputs import ByInput, InputOf
from consumer.delivery.dead_letter_rate import TRIAL_EVENTS, DeadLetterRate
from consumer.delivery.dead_letters import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from consumer.config.tree import DeliveryConfig
    from consumer.events import Outcome, SourceRecord
    from consumer.kafka.runtime import KafkaRuntime
    from consumer.telemetry.status import FloodStatus, TopicFlood

REASON = "flood"
CLASS = PREFIX + "class"

_log = structlog.stdlib.get_logger(__name__)


class DeadLetterBreaker:
    """Thread-safe: the release thread counts events, the event loop ends pauses, the HTTP server's threads resume."""

    def __init__(
        self, delivery: DeliveryConfig, topics: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``topics`` are the routes' inputs: the topics of a pattern are counted, and pause, together."""
        self.runtime: KafkaRuntime | None = None
        """To be set before the first event."""
        self._dead_letter_topic = delivery.dead_letter_topic
        run, rate, pause = delivery.dead_letter_run, delivery.dead_letter_rate, delivery.dead_letter_pause
        self._rates = ByInput(topics, lambda _: DeadLetterRate(run, rate, pause, clock))
        self._input_of = InputOf(self._rates.of)
        self._lock = threading.Lock()

    # Called on the release thread.

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:
        """Count ``record``, whose outputs are durable: it can neither fail any more nor come twice in this assignment.

        ``outcome`` holds what was published: a dead letter where a result was too large for its topic.
        """
        if outcome.kind == "dropped":
            return
        dead = False
        for output in outcome.outputs:  # for every event; a generator in ``any`` takes twice as long
            dead = dead or output.topic == self._dead_letter_topic
        with self._lock:
            rate = self._rates[record.topic]
            if not dead and not rate.dead and rate.state == "flowing" and record.fetched_at >= rate.counts_from:
                rate.counted += 1  # all that ``count`` would do; nearly every event comes this way
                return
            tried = rate.state == "trial"
            told = self._told(record, outcome) if dead else ((), "")
            if rate.count(record.fetched_at, dead=dead, classes=told[0], place=told[1]):
                self._changed(self._input_of[record.topic], again=tried)

    def _told(self, record: SourceRecord, outcome: Outcome) -> tuple[tuple[str, ...], str]:
        """The classes of an event's dead letters, and which record it was."""
        letters = (output for output in outcome.outputs if output.topic == self._dead_letter_topic)
        # Ours stands behind what the record brought.
        found = (next((value for name, value in reversed(each.headers) if name == CLASS), None) for each in letters)
        classes = dict.fromkeys((value or b"(none)").decode() for value in found)
        return tuple(classes), f"{record.topic}-{record.partition}@{record.offset}"

    # Called from any thread.

    def tick(self) -> None:
        """Begin the trials whose pauses are over. To be called about every second."""
        with self._lock:
            for topic, rate in self._rates.of.items():
                if rate.state == "paused" and rate.wake():
                    self._changed(topic)

    def resume(self, topic: str | None = None) -> dict[str, object]:
        """Begin the trial of the input of ``topic``, or of every one that is paused, at once, for an operator.

        Returns what to answer, ready for JSON.
        """
        named = None if topic is None else self._rates.inputs.find(topic)
        with self._lock:
            chosen = [each for each in self._rates.of if topic is None or each == named]
            resumed = [each for each in chosen if self._rates[each].resume()]
            for each in resumed:
                self._changed(each)
            states = {each: self._rates[each].state for each in chosen}
        state = next((each for each in ("paused", "trial") if each in states.values()), "flowing")
        if resumed:
            message = (
                f"a trial of {TRIAL_EVENTS} events decides whether consumption goes on in full: {', '.join(resumed)}"
            )
        elif not chosen:
            message = f"nothing to resume: this worker has no such input topic; it reads {', '.join(self._rates.of)}"
        elif state == "trial":
            message = "nothing to resume: the trial after a flood of dead letters is under way"
        else:
            message = "nothing to resume: consumption is not paused for a flood of dead letters"
        return {"resumed": [REASON] if resumed else [], "topics": resumed, "state": state, "message": message}

    def status(self) -> FloodStatus:
        """For /status."""
        with self._lock:
            topics = {topic: _shown(rate) for topic, rate in self._rates.of.items()}
        worst = min(topics.values(), key=lambda each: ("paused", "trial", "flowing").index(each["state"]))
        return {**worst, "topics": topics}

    def paused(self) -> dict[str, str]:
        """The input topics that are paused, each with why, in words. In a trial a topic is consumed."""
        return {
            topic: (
                f"paused, {shown['reason']}{_examples(shown)}: tried again in {shown['trial_in_seconds']:.0f} s, or at "
                "once with `rexstream resume`"
            )
            for topic, shown in self.status()["topics"].items()
            if shown["state"] == "paused"
        }

    def _changed(self, topic: str, *, again: bool = False) -> None:
        rate, runtime = self._rates[topic], self.runtime
        if runtime is None:
            raise RuntimeError("An event was durable before the breaker knew the Kafka runtime")
        paused = [each for each, its in self._rates.of.items() if its.state == "paused"]
        if rate.state == "paused":
            runtime.pause(REASON, paused)
            # Set before consumption resumes: the poll thread might otherwise still fill the full bounds.
            runtime.limit(topic, TRIAL_EVENTS)
            # One error line, and so one alert, for each flood; a pause that is repeated is logged as a warning.
            (_log.warning if again else _log.error)(
                "too many dead letters: consumption of their input topic pauses, nothing is dropped",
                topic=topic,
                reason=rate.why,
                classes=rate.classes,
                examples=list(rate.examples),
                seconds=round(rate.seconds_left, 1),
                fix="see `rexstream dead-letters list`; mend the producer or the task, then `rexstream resume`",
            )
        elif rate.state == "trial":
            runtime.pause(REASON, paused)
            _log.info("the flood pause ends with a trial", topic=topic, events=TRIAL_EVENTS)
        else:
            runtime.limit(topic, None)
            _log.info("the trial went well: consumption goes on in full", topic=topic)


def _shown(rate: DeadLetterRate) -> TopicFlood:
    flowing = rate.state == "flowing"
    return {
        "state": rate.state,
        "reason": None if flowing else rate.why,
        "classes": {} if flowing else rate.classes,
        "examples": [] if flowing else list(rate.examples),
        "trial_in_seconds": round(rate.seconds_left, 1),
    }


def _examples(shown: TopicFlood) -> str:
    classes = ", ".join(f"{name} {count}" for name, count in shown["classes"].items())
    return f" ({classes}; such as {', '.join(shown['examples'])})" if shown["examples"] else ""
