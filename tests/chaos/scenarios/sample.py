"""Three faults in one short run: what of this suite belongs to every test run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.scenario import Scenario

if TYPE_CHECKING:
    from chaos.stage import Stage


def _sample(stage: Stage) -> None:
    stage.set_up()
    victim = stage.worker()
    stage.worker(wait=False)
    stage.begin()
    stage.progress()
    stage.fault("SIGKILL of the model server")
    stage.server.kill()
    stage.wait(lambda: "outage" in victim.paused, "the worker pauses for the outage")
    # No transaction is under way then. An only broker that is killed within a commit may come back without the markers
    # of it (Kafka's, about one kill in twenty): broker_sigkill takes that chance, a test of every run must not.
    stage.pause(1)
    stage.wait(lambda: all(map(stage.topics.settled, (stage.output, stage.dead))), "what was under way is committed")
    stage.fault("SIGKILL of the broker", cut_off=2)
    stage.kafka.kill()
    stage.kafka.start()
    stage.server.start()
    stage.progress()
    stage.pause(0, 1)
    stage.fault(f"SIGKILL of worker {victim.number}", ended=1)
    victim.kill()
    stage.progress()
    stage.finish()


SCENARIOS = (
    Scenario(
        "sample",
        "SIGKILL of the model server, then of the broker, then of one of two workers, in one short run",
        "no dead letter but of bad input; the other worker takes over",
        _sample,
        on_demand=True,
    ),
)
