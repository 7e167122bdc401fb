"""Two releases in one consumer group: a rolling upgrade, its way back, and dead letters that both replay."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

from chaos.releases import OLD, command
from chaos.reviews import mixture, unreadable
from chaos.scenario import Scenario
from chaos.stage import CLASSIC, KIP_848
from chaos.worker import TODAYS
from confluent_kafka import Producer

from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.events import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.stage import Stage
    from chaos.worker import Worker

RATE = 30.0
"""Events a second: less than elsewhere, since every step of the upgrade waits for a worker that starts."""

MIXED = 150
"""Events that the mixed group commits before anything else is done to it: five seconds of the load."""

LETTERS = 6
"""Dead letters of each release."""

EXIT_CONFIG = 2


def _rolling(stage: Stage, client: Mapping[str, Any]) -> None:
    old = command(OLD)
    stage.set_up()
    running = [stage.worker(client=client, program=old, wait=False) for _ in range(2)]
    for worker in running:
        worker.wait_until_ready()
    stage.begin(RATE, mixture(stage.random))
    stage.progress()
    for what, program in (("today's release", TODAYS), ("the old release", old)):
        running[0] = _replaced(stage, running[0], what, program)
        stage.wait(lambda: all(worker.assignment == 2 for worker in running), "old and new have two partitions each")
        stage.progress(MIXED)
        # What one has committed, and may have left open in a transaction, the other goes on from.
        stage.fault(f"SIGKILL of worker {running[0].number}, the one of {what}", ended=2)
        running[0].kill()
        running[0] = stage.worker(client=client, program=program)
        stage.progress()
        running[1] = _replaced(stage, running[1], what, program)
        stage.progress()
    stage.finish()


def _replaced(stage: Stage, worker: Worker, what: str, program: Sequence[str]) -> Worker:
    stage.fault(f"SIGTERM of worker {worker.number}, then {what} in its place", ended=2)
    code = worker.drain()
    stage.check(code == 0, f"worker {worker.number} drained with exit code {code}")
    return stage.worker(client=worker.made_with["client"], program=program)


def _replays(stage: Stage) -> None:
    old = command(OLD)
    stage.set_up()
    for program in (old, TODAYS):
        worker = stage.worker(program=program)
        stage.load.send(unreadable, LETTERS)
        stage.load.stop()
        stage.wait(lambda: stage.topics.lag(stage.group, stage.input) == 0, "lag 0")
        stage.check(worker.drain() == 0, f"worker {worker.number} drains")
    stage.fault("today's release replays a few dead letters, the old one the rest, and each once more")
    limit = ("--limit", str(LETTERS - 1))
    for program, options, due in (
        (TODAYS, limit, LETTERS - 1),
        (old, limit, LETTERS - 1),
        (TODAYS, (), 2),
        (old, (), 0),
    ):
        found = _replay(program, worker, options)
        stage.check(found["replayed"] == due, f"{due} letters are left for this replay, it sent {found['replayed']}")
    several = _letter_of_two_tasks(stage)
    found = _replay(old, worker, ("--dead-letter-topic", several))
    stage.check(
        found.get("skipped") == {"impossible_task": 1}, f"the old release leaves out a letter of two tasks: {found}"
    )
    found = _replay(TODAYS, worker, ("--dead-letter-topic", several, "--dry-run"))
    stage.check(found.get("replayable") == 1, f"today's would replay it: {found}")
    stage.worker(program=old)  # it reads what today's release has sent, too
    audit = stage.finish()
    sent = audit.inputs - 2 * LETTERS
    stage.check(sent == 2 * LETTERS, f"{sent} records were sent for {2 * LETTERS} letters")


def _letter_of_two_tasks(stage: Stage) -> str:
    """A topic of its own with one letter, of a form that the old release does not write."""
    topic = f"{stage.dead}.several"
    stage.topics.create(topic, 1)
    record = SourceRecord(stage.input, 0, 0, 0, b"key", b"{}", (), 1, 0.0)
    failure = Failure("extract", "Poison", "no answer", 1, task="sentiment,product_features", task_count=2)
    letter = DeadLetters(topic, stage.group, "0.1.0").of(record, failure, 1)
    producer = Producer({"bootstrap.servers": stage.kafka.bootstrap_servers})
    producer.produce(topic, letter.value, letter.key, headers=list(letter.headers))
    producer.flush(60)
    return topic


def _replay(program: Sequence[str], worker: Worker, options: Sequence[str]) -> dict[str, Any]:
    arguments = [*program, "dead-letters", "replay", "--config", str(worker.config), "--json", *options]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=180)
    found: dict[str, Any] = json.loads(done.stdout or '{"replayed": null}')
    return found


def _unknown_key(stage: Stage) -> None:
    """An old worker that gets a configuration of today's."""
    stage.set_up()
    limits = {"work_bytes": 256 * 1024 * 1024}
    worker = stage.worker(program=command(OLD), wait=False, limits=limits)
    worker.dismissed = True
    code = worker.wait()
    stage.check(code == EXIT_CONFIG, f"the old worker ended with exit code {code}")
    stage.check(worker.said("limits.work_bytes"), "it names the key that it does not know")
    stage.worker(limits=limits)
    stage.load.send(unreadable, LETTERS)
    stage.finish()


_PREPARE = partial(command, OLD)

SCENARIOS = (
    Scenario(
        "releases_rolling",
        f"two workers of {OLD[:7]} under load, replaced by today's one after the other, and back again; a SIGKILL in "
        "the mixed group each way",
        "each drains with exit code 0; the two releases share the group's partitions",
        partial(_rolling, client=CLASSIC),
        prepare=_PREPARE,
    ),
    Scenario(
        "releases_rolling_kip848",
        "the same, group.protocol consumer",
        "each drains with exit code 0; the two releases share the group's partitions",
        partial(_rolling, client=KIP_848),
        modes=("exactly_once",),
        prepare=_PREPARE,
    ),
    Scenario(
        "releases_replay",
        f"dead letters of {OLD[:7]} and of today's release, replayed by both in turn",
        "each is replayed once",
        _replays,
        modes=("at_least_once",),
        prepare=_PREPARE,
    ),
    Scenario(
        "releases_unknown_key",
        f"a worker of {OLD[:7]} gets a configuration key that only today's release has",
        "it ends with exit code 2 and names the key",
        _unknown_key,
        modes=("at_least_once",),
        prepare=_PREPARE,
    ),
)
