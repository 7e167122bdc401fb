"""The breaker between the outcomes of events and the consumption of records."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from consumer.config.tree import DeliveryConfig
from consumer.delivery.dead_letter_rate import TRIAL_EVENTS
from consumer.delivery.ledger import Release
from consumer.events import Outcome, Output, Partition, SourceRecord
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.publish.refusals import Replacements
from consumer.worker.dead_letter_breaker import DeadLetterBreaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict

    from consumer.kafka.runtime import KafkaRuntime

GOOD = Outcome("done", (Output("reviews.extracted", None, b"{}"),))
DEAD = Outcome("done", (Output("reviews.dead", None, b"{"),))
PARTIAL = Outcome("done", (*GOOD.outputs, *DEAD.outputs))
DROPPED = Outcome("dropped")
RAW, OTHER = "reviews.raw", "shop.raw"
PAUSED = [("pause", ["reviews.raw"]), ("limit", "reviews.raw", TRIAL_EVENTS)]
RESUMED: list[tuple[str, list[str]]] = [("pause", [])]


class Runtime:
    """Writes down its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def pause(self, reason: str, topics: list[str]) -> None:
        assert reason == "flood"
        self.calls.append(("pause", topics))

    def limit(self, topic: str, records: int | None) -> None:
        self.calls.append(("limit", topic, records))


class World:
    """A breaker with a run of three, its runtime and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runtime = Runtime()
        self.breaker = DeadLetterBreaker(
            DeliveryConfig(dead_letter_run=3, dead_letter_pause=60.0), (RAW, OTHER), lambda: self.now
        )
        self.breaker.runtime = cast("KafkaRuntime", self.runtime)
        self.offset = 0

    def record(self, epoch: int = 1, topic: str = RAW) -> SourceRecord:
        self.offset += 1
        return SourceRecord(topic, 0, self.offset, epoch, None, b"{", (), None, self.now)

    def end(self, outcome: Outcome, times: int = 1, topic: str = RAW) -> None:
        for _ in range(times):
            self.breaker.durable(self.record(topic=topic), outcome)

    def publish(self, release: Release) -> None:
        self.breaker.durable(release.record, release.outcome)


def release(record: SourceRecord, outcome: Outcome) -> Release:
    return Release(Partition.of(record), record, outcome)


def too_large(release: Release) -> Release:
    """What a publisher makes of it when its topic refuses the first result for its size."""
    observer = create_autospec(KafkaObserver, instance=True)
    output = next(each for each in release.outcome.outputs if each.topic != "reviews.dead")
    Replacements("reviews.dead", lambda _, refused, __: replace(refused, topic="reviews.dead"), observer).replace(
        release, output, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    )
    return release


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.mark.parametrize("outcome", [DEAD, PARTIAL])
def test_any_dead_letter_of_an_event_counts(world: World, outcome: Outcome) -> None:
    """A task that fails on every event is a flood beside its siblings' results, too."""
    world.end(outcome, 3)
    assert world.runtime.calls == []
    world.end(outcome)
    assert world.runtime.calls == PAUSED


def test_null_values_are_neither_good_nor_bad(world: World) -> None:
    """They end no run and are none."""
    world.end(DROPPED, 50)
    assert world.runtime.calls == []
    for _ in range(4):
        world.end(DEAD)
        world.end(DROPPED)
    assert world.runtime.calls == PAUSED


def test_a_result_that_no_topic_takes_makes_its_event_dead(world: World) -> None:
    """Its outcome was a result, what is published is a dead letter; it counts once, and no other event for it."""
    for _ in range(3):
        both = Outcome("done", (*GOOD.outputs, replace(GOOD.outputs[0])))
        world.publish(too_large(too_large(release(world.record(), both))))
        assert world.runtime.calls == []
    world.end(GOOD)
    for _ in range(4):
        world.publish(too_large(release(world.record(), PARTIAL)))
    assert world.runtime.calls == PAUSED


def test_a_result_too_large_of_an_assignment_that_ended_is_forgotten(world: World) -> None:
    """Its record is read again, and then it may fit; late news of the old assignment change nothing."""
    old, new = release(world.record(), GOOD), release(world.record(epoch=2), GOOD)
    again = SourceRecord("reviews.raw", 0, old.record.offset, 2, None, b"{", (), None, world.now)
    world.end(DEAD, 3)
    too_large(old)
    world.publish(release(again, GOOD))
    world.end(DEAD, 3)
    too_large(new)
    world.publish(release(again, GOOD))
    world.end(DEAD, 2)
    world.publish(new)
    assert world.runtime.calls == []
    world.end(DEAD)
    assert world.runtime.calls == PAUSED


def test_the_way_through_a_flood(world: World, logs: list[EventDict]) -> None:
    """Pause with the trial's bound set already, trial, pause again, trial, in full; one error line in all."""
    world.end(DEAD, 40)
    assert world.runtime.calls == PAUSED
    assert "4 events in a row" in world.breaker.paused()[RAW]
    assert "60 s" in world.breaker.paused()[RAW]
    world.now = 59.9
    world.breaker.tick()
    assert world.runtime.calls == PAUSED
    world.now = 60.0
    world.breaker.tick()
    world.breaker.tick()
    assert world.runtime.calls[2:] == RESUMED
    assert world.breaker.paused() == {}
    assert world.breaker.status()["state"] == "trial"
    world.end(DEAD, 4)
    assert world.runtime.calls[3:] == PAUSED
    assert world.breaker.status()["trial_in_seconds"] == 120.0
    assert world.breaker.resume()["resumed"] == ["flood"]
    assert world.breaker.resume()["resumed"] == []
    assert world.runtime.calls[5:] == RESUMED
    world.end(GOOD, TRIAL_EVENTS)
    assert world.runtime.calls[6:] == [("limit", RAW, None)]
    flowing: dict[str, Any] = {
        "state": "flowing",
        "reason": None,
        "classes": {},
        "examples": [],
        "trial_in_seconds": 0.0,
    }
    assert world.breaker.status() == {**flowing, "topics": {RAW: flowing, OTHER: flowing}}
    assert world.breaker.resume() == {
        "resumed": [],
        "topics": [],
        "state": "flowing",
        "message": "nothing to resume: consumption is not paused for a flood of dead letters",
    }
    assert [line["log_level"] for line in logs] == ["error", "info", "warning", "info", "info"]


def test_two_threads_pause_once(world: World) -> None:
    """Events end on one thread while results are refused, an operator resumes and time passes on others."""
    both = threading.Barrier(3)

    def end() -> None:
        both.wait()
        for _ in range(300):
            world.breaker.durable(SourceRecord("reviews.raw", 1, 0, 1, None, b"{", (), None, 1e9), DEAD)

    def resume() -> None:
        both.wait()
        for _ in range(300):
            world.breaker.resume()
            world.breaker.tick()

    threads = [threading.Thread(target=end), threading.Thread(target=end), threading.Thread(target=resume)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls = world.runtime.calls
    while calls:
        assert calls[:2] == PAUSED
        assert calls[2:3] in ([], RESUMED)
        calls = calls[3:]


def test_each_input_topic_is_counted_paused_and_tried_by_itself(world: World) -> None:
    """The good events of one do not hide the flood of another, nor does that flood pause them."""
    for _ in range(3):
        world.end(DEAD)
        world.end(GOOD, 10, OTHER)
    assert world.runtime.calls == []
    world.end(DEAD)
    world.end(GOOD, 50, OTHER)
    assert world.runtime.calls == PAUSED
    status = world.breaker.status()
    assert status["state"] == "paused"
    assert {topic: each["state"] for topic, each in status["topics"].items()} == {RAW: "paused", OTHER: "flowing"}
    world.now = 30.0
    world.end(DEAD, 4, OTHER)
    assert world.runtime.calls[2:] == [("pause", [RAW, OTHER]), ("limit", OTHER, TRIAL_EVENTS)]
    assert world.breaker.paused().keys() == {RAW, OTHER}
    world.now = 60.0
    world.breaker.tick()
    assert world.runtime.calls[4:] == [("pause", [OTHER])]
    world.end(GOOD, TRIAL_EVENTS)
    assert world.runtime.calls[5:] == [("limit", RAW, None)]


def test_one_topic_can_be_resumed_and_by_default_all_are(world: World) -> None:
    """A name that is none says which there are."""
    world.end(DEAD, 4)
    world.end(DEAD, 4, OTHER)
    answer = world.breaker.resume("shop.row")
    assert answer["topics"] == []
    assert RAW in str(answer["message"])
    assert world.breaker.resume(OTHER)["topics"] == [OTHER]
    assert world.runtime.calls[-1] == ("pause", [RAW])
    assert world.breaker.resume(OTHER)["state"] == "trial"
    assert world.breaker.resume()["topics"] == [RAW]
    assert world.runtime.calls[-1] == ("pause", [])


def test_topics_of_a_pattern_are_counted_together(world: World) -> None:
    """One shop's flood pauses them all; an operator names any of them, or the pattern. Unknown names change nothing."""
    pattern = r"^shop\..*$"
    world.breaker = DeadLetterBreaker(DeliveryConfig(dead_letter_run=3), (pattern, RAW), lambda: world.now)
    world.breaker.runtime = cast("KafkaRuntime", world.runtime)
    for name in "abab":
        world.end(DEAD, topic=f"shop.{name}")
    assert world.runtime.calls == [("pause", [pattern]), ("limit", pattern, TRIAL_EVENTS)]
    assert list(world.breaker.paused()) == [pattern]
    assert list(world.breaker.status()["topics"]) == [pattern, RAW]
    unknown = world.breaker.resume("nobody.knows")
    assert (unknown["topics"], pattern in str(unknown["message"])) == ([], True)
    assert world.breaker.resume("shop.never-seen")["topics"] == [pattern]


def letter(*classes: str) -> Outcome:
    """An event with a dead letter of each class; the record had brought a header of that name."""
    forged = ("rexstream-dlq-class", "什么破手机".encode())
    outputs = (Output("reviews.dead", None, b"{", (forged, ("rexstream-dlq-class", each.encode()))) for each in classes)
    return Outcome("done", (*GOOD.outputs, *outputs))


def test_a_flood_says_of_which_class_and_where(world: World, logs: list[EventDict]) -> None:
    """In the log, in /status and in /readyz; a class counts once for an event, however many letters it has."""
    world.end(letter("Old"))
    world.end(GOOD)
    world.end(letter("InvalidJson"))
    world.end(letter("TextTooLong", "InvalidJson", "TextTooLong"))
    world.end(letter("InvalidJson"), 2)
    classes = {"InvalidJson": 4, "Old": 1, "TextTooLong": 1}
    examples = [f"reviews.raw-0@{offset}" for offset in (4, 5, 6)]
    (line,) = (line for line in logs if "too many dead letters" in line["event"])
    assert (line["classes"], line["examples"]) == (classes, examples)
    shown = world.breaker.status()["topics"][RAW]
    assert (shown["classes"], shown["examples"]) == (classes, examples)
    said = world.breaker.paused()[RAW]
    assert "(InvalidJson 4, Old 1, TextTooLong 1; such as reviews.raw-0@4, reviews.raw-0@5, reviews.raw-0@6)" in said
    assert "什么" not in str((logs, world.breaker.status(), said))
    # What is in flight meanwhile changes nothing, the trial begins anew.
    world.end(letter("Poison"))
    assert world.breaker.status()["topics"][RAW]["classes"] == classes
    world.now = 60.0
    world.breaker.tick()
    world.end(letter("Poison"), 4)
    assert world.breaker.status()["topics"][RAW]["classes"] == {"Poison": 4}
