"""Faults of the brokers: restarted, killed, frozen, leaders lost, and a version older than the tests' own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.scenario import Kafka, Scenario
from chaos.stage import CLASSIC, KIP_848

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.stage import Stage

OLDER = Path(__file__).resolve().parents[1] / "kafka-older/pom.xml"
FROZEN_SECONDS = 20.0
GO_ON = (
    "workers wait and go on; one may be fenced (exactly_once), or given up by its client, with exit code 4 and started "
    "again"
)

DEFAULT_CLEANUP = ("transaction.abort.timed.out.transaction.cleanup.interval.ms=10000",)
"""What brokers do of themselves, in place of the tests' 500. A broker that comes back and aborts transactions before it
takes connections may lose their markers (seen on 4.4 with one broker)."""


def _begun(stage: Stage, workers: int) -> None:
    stage.set_up()
    for _ in range(workers):
        stage.worker()
    stage.begin()
    stage.pause(3, 5)


def _away(stage: Stage, words: str, leave: Callable[[], None]) -> None:
    """The only broker goes and comes back."""
    workers = len(stage.running)
    for _ in range(2):
        stage.fault(words, cut_off=workers)
        leave()
        stage.pause(1, 6)
        stage.kafka.start()
        stage.fault("the broker is back")
        stage.progress()
        stage.pause(1, 3)
    stage.check(len(stage.running) == workers, f"{workers} workers are there")
    stage.finish()


def _restart(stage: Stage) -> None:
    _begun(stage, 2)
    _away(stage, "SIGTERM of the broker", stage.kafka.stop)


def _kill(stage: Stage) -> None:
    # One worker: it gets the partitions back that it lost while it was paused, for its results found no broker.
    _begun(stage, 1)
    _away(stage, "SIGKILL of the broker", stage.kafka.kill)


def _freeze(stage: Stage) -> None:
    _begun(stage, 2)
    stage.fault(f"SIGSTOP of the broker for {FROZEN_SECONDS:.0f} s", cut_off=2)
    stage.kafka.pause()
    try:
        stage.pause(FROZEN_SECONDS)
    finally:
        stage.kafka.resume()
    stage.fault("SIGCONT of the broker")
    stage.progress()
    stage.check(len(stage.running) == 2, "two workers are there")
    stage.finish()


def _leader_loss(stage: Stage) -> None:
    _begun(stage, 2)
    coordinated = stage.topics.coordinating_partition("__consumer_offsets", stage.group)
    for what, topic, partition in (
        ("an input partition", stage.input, stage.random.randrange(4)),
        ("a partition of results", stage.output, stage.random.randrange(4)),
        ("the group (its coordinator)", "__consumer_offsets", coordinated),
        *([("transactions", "__transaction_state", 0)] if stage.mode == "exactly_once" else []),
    ):
        stage.wait(lambda t=topic, p=partition: stage.kafka.leader(t, p) > 0, f"{topic} has a leader")  # type: ignore[misc]
        broker = stage.kafka.leader(topic, partition)
        stage.fault(f"SIGKILL of broker {broker}, leader of {what}", cut_off=2)
        stage.kafka.kill(broker=broker)
        stage.wait(
            lambda t=topic, p=partition, b=broker: stage.kafka.leader(t, p) not in (-1, b),  # type: ignore[misc]
            "another broker leads",
        )
        stage.progress()
        stage.kafka.start(broker=broker)
        stage.fault(f"broker {broker} is back")
        stage.wait(stage.topics.whole, "all replicas in sync")
        stage.progress()
    stage.check(len(stage.running) == 2, "two workers are there")
    stage.finish()


def _older(stage: Stage, client: Mapping[str, Any]) -> None:
    stage.set_up()
    stage.note(f"Apache Kafka {stage.kafka.version}")
    first = stage.worker(client=client)
    stage.begin()
    stage.pause(3)
    second = stage.worker(client=client)
    stage.fault("a second worker joins", ended=1)
    stage.wait(lambda: second.assignment == 2, "it has its share")
    stage.fault("SIGKILL of the first", ended=1)
    first.kill()
    stage.progress()
    third = stage.worker(client=client)
    stage.fault("a third worker joins", ended=1)
    stage.wait(lambda: third.assignment == 2, "it has its share")
    stage.fault("SIGTERM of the second")
    stage.check(second.drain() == 0, "the second drained with exit code 0")
    stage.progress()
    stage.finish()


SCENARIOS = (
    Scenario(
        "broker_restart",
        "two workers; twice SIGTERM of the only broker, away for 1 to 6 s",
        GO_ON,
        _restart,
        kafka=Kafka(settings=DEFAULT_CLEANUP),
    ),
    Scenario(
        "broker_sigkill",
        "one worker; twice SIGKILL of the only broker, away for 1 to 6 s",
        f"{GO_ON}; without an answer about the group's offsets Kafka lost a commit's markers (README)",
        _kill,
        kafka=Kafka(settings=DEFAULT_CLEANUP),
    ),
    Scenario(
        "broker_sigstop",
        f"two workers; SIGSTOP of the only broker for {FROZEN_SECONDS:.0f} s",
        GO_ON,
        _freeze,
        kafka=Kafka(settings=DEFAULT_CLEANUP),
    ),
    Scenario(
        "leader_loss",
        "three brokers; SIGKILL of the leader of an input partition, of a result partition, of the group's coordinator "
        "and (exactly_once) of transactions, one after the other, each brought back",
        "it goes on with two brokers, and again with three; in exactly_once a worker may be fenced and started again",
        _leader_loss,
        kafka=Kafka(brokers=3),
    ),
    Scenario(
        "older_classic",
        "rebalances, a SIGKILL and a SIGTERM on an older 4.x broker, cooperative-sticky",
        "as on the newest",
        partial(_older, client=CLASSIC),
        kafka=Kafka(pom=OLDER),
    ),
    Scenario(
        "older_kip848",
        "rebalances, a SIGKILL and a SIGTERM on an older 4.x broker, group.protocol consumer",
        "as on the newest",
        partial(_older, client=KIP_848),
        kafka=Kafka(pom=OLDER),
    ),
)
