"""Faults of the topics that results and dead letters go to, and records too large for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chaos.reviews import Review, dead, large_result
from chaos.scenario import RULES, Kafka, Scenario

if TYPE_CHECKING:
    from chaos.stage import Stage

NO_CREATION = Kafka(settings=("auto.create.topics.enable=false",))
HUGE_BYTES = 5_000_000


def _result_topic_missing(stage: Stage) -> None:
    stage.set_up(output=False)
    _missing(stage, stage.output)


def _dead_letter_topic_missing(stage: Stage) -> None:
    stage.set_up(dead=False)
    _missing(stage, stage.dead)


def _missing(stage: Stage, topic: str) -> None:
    worker = stage.worker()
    stage.fault(f"topic {topic} does not exist")
    stage.begin()
    stage.wait(lambda: "output" in worker.paused, "the worker pauses for the topic that takes nothing")
    stage.check(not worker.ready, "the worker is not ready")
    stage.pause(6)
    stage.topics.create(topic, 4)
    stage.fault("the topic is created")
    stage.progress()
    stage.wait(lambda: worker.ready, "the worker is ready again")
    stage.finish()


def _read_only(stage: Stage) -> None:
    stage.set_up()
    worker = stage.worker()
    stage.begin()
    stage.pause(3, 5)
    stage.fault("nobody may write to the result topic")
    stage.topics.forbid_writing(stage.output)
    stage.wait(lambda: "output" in worker.paused, "the worker pauses for the topic that takes nothing")
    stage.check(not worker.ready, "the worker is not ready")
    stage.pause(6)
    stage.topics.allow_writing(stage.output)
    stage.fault("everybody may again")
    stage.progress()
    stage.wait(lambda: worker.ready, "the worker is ready again")
    stage.finish()


def _too_large(stage: Stage) -> None:
    stage.set_up(max_message_bytes="8000000")
    stage.topics.set(stage.output, "max.message.bytes", "4000")
    stage.worker()
    stage.begin()
    for _ in range(5):
        stage.pause(0.5, 2)
        stage.fault("a result of 6 kB for a topic that takes 4 kB")
        stage.load.send(large_result)
    stage.fault("an input of 5 MB, and a dead-letter topic that takes 1 MB")
    # Random, so that no compression makes it small enough after all.
    value = b'{"text": "%s"}' % os.urandom(HUGE_BYTES // 2).hex().encode()
    stage.load.send(lambda _: Review("huge", b"p1", value, dead("decode/ValueTooLarge")))
    stage.progress()
    stage.finish()


SCENARIOS = (
    Scenario(
        "result_topic_missing",
        "the result topic does not exist, and is created while the worker waits",
        "paused (output), not ready, nothing dead-lettered for it; goes on by itself; no copy in either mode",
        _result_topic_missing,
        kafka=NO_CREATION,
    ),
    Scenario(
        "dead_letter_topic_missing",
        "the dead-letter topic does not exist, and is created while the worker waits",
        "paused (output), not ready, nothing dropped; goes on by itself; no copy in either mode",
        _dead_letter_topic_missing,
        kafka=NO_CREATION,
    ),
    Scenario(
        "result_topic_read_only",
        "nobody may write to the result topic (a rule of the authorizer), then everybody may again",
        "paused (output), not ready, nothing dead-lettered for it; goes on by itself; no copy in either mode",
        _read_only,
        kafka=RULES,
    ),
    Scenario(
        "too_large",
        "five results larger than their topic takes; an input of 5 MB that the dead-letter topic cannot take",
        "a dead letter for each result (produce/ResultTooLarge), and one without its value (decode/ValueTooLarge)",
        _too_large,
    ),
)
