"""Faults of the model server: gone, hung, slow, swapped, answering garbage, and killed by a single review."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos.model_server import ModelServer
from chaos.reviews import plain, poison
from chaos.scenario import Scenario

if TYPE_CHECKING:
    from chaos.stage import Stage

OUTAGE_SECONDS = 60.0
HUNG_SECONDS = 25.0
"""Two and a half times the floor of a call's deadline."""


def _begun(stage: Stage) -> None:
    stage.set_up()
    stage.worker()
    stage.begin()
    stage.pause(3, 5)


def _killed(stage: Stage) -> None:
    _begun(stage)
    for _ in range(3):
        stage.fault("SIGKILL of the model server")
        stage.server.kill()
        stage.wait(lambda: "outage" in stage.workers[0].paused, "the worker pauses for the outage")
        stage.pause(0.5, 3)
        stage.server.start()
        stage.fault("the model server is back")
        stage.progress()
    stage.finish()


def _hung(stage: Stage) -> None:
    _begun(stage)
    stage.fault(f"SIGSTOP of the model server for {HUNG_SECONDS:.0f} s")
    stage.server.hang()
    stage.pause(HUNG_SECONDS)
    stage.check(stage.workers[0].get("/livez")[0] == 200, "the worker is alive while its model hangs")
    stage.server.go_on()
    stage.fault("SIGCONT of the model server")
    stage.progress()
    stage.finish()


def _slow(stage: Stage) -> None:
    _begun(stage)
    stage.fault("the model server takes ten times as long")
    stage.server.order(slow=10.0)
    stage.progress()
    stage.pause(12)
    stage.check("outage" not in stage.workers[0].paused, "slowness is no outage")
    stage.server.order(slow=1.0)
    stage.fault("it is as fast as before")
    stage.progress()
    stage.finish()


def _outage(stage: Stage) -> None:
    stage.set_up()
    stage.worker()
    stage.worker()
    stage.begin(rate=20)
    stage.pause(3, 5)
    stage.fault(f"SIGKILL of the model server for {OUTAGE_SECONDS:.0f} s")
    stage.server.kill()
    for worker in stage.workers:
        stage.wait(lambda w=worker: "outage" in w.paused, "every worker pauses for the outage")  # type: ignore[misc]
    ends = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < ends:
        for worker in stage.workers:
            stage.check(worker.get("/livez")[0] == 200, f"worker {worker.number} is alive without its model")
            stage.check(worker.assignment > 0, f"worker {worker.number} keeps its partitions")
        stage.pause(5)
    dead = sum(1 for _ in stage.topics.read(stage.dead))
    stage.server.start()
    stage.fault("the model server is back")
    stage.progress()
    stage.finish()
    stage.check(
        all(reason.startswith(("decode/", "validate/")) for reason in stage.audited.dead_letters),
        f"no dead letter of the outage: {dict(stage.audited.dead_letters)}",
    )
    stage.note(f"{dead} dead letters of bad input before the server was back, none of the outage")


def _swapped(stage: Stage) -> None:
    _begun(stage)
    for version in (2, 3):
        stage.fault(f"version {version} takes the place of version {version - 1}")
        stage.server.order(version=version)
        stage.progress(100)
        stage.pause(1, 3)
    stage.finish()
    versions = stage.audited.versions
    stage.check(versions.keys() == {"1", "2", "3"}, f"results of each version: {dict(versions)}")
    stage.note(f"results per version: {dict(sorted(versions.items()))}")


def _garbage(stage: Stage) -> None:
    _begun(stage)
    for garbage in ("nan", "shape"):
        stage.fault(f"answers of the model server are garbage ({garbage}) for 8 s")
        stage.server.order(garbage=garbage)
        stage.wait(lambda: "deployment_fault" in stage.workers[0].paused, "the worker pauses for a deployment fault")
        stage.check(not stage.workers[0].ready, "the worker is not ready")
        stage.pause(8)
        stage.server.order(garbage=None)
        stage.fault("answers are right again")
        stage.progress()
        stage.wait(lambda: stage.workers[0].ready, "the worker is ready again")
    stage.finish()


def _poisoned(stage: Stage) -> None:
    stage.set_up()
    stage.server.order(mortal=True)
    stage.worker()
    stage.begin(rate=20, write=plain)
    stage.pause(3, 5)
    stage.fault("one review whose window kills the model server; a supervisor starts it again")
    stage.load.send(poison)

    def given_up() -> bool:
        stage.server.tend()
        return any(True for _ in stage.topics.read(stage.dead))

    stage.wait(given_up, "the poisonous window is given up")
    stage.note(f"the model server died {stage.server.deaths} times of it")
    stage.progress()
    stage.finish(tend=True)


def _one_of_three(stage: Stage) -> None:
    stage.set_up()
    others = [ModelServer(stage.folder / name) for name in ("second", "third")]
    try:
        for server in others:
            server.folder.mkdir()
            server.start()
        target = "ipv4:" + ",".join(server.target for server in (stage.server, *others))
        worker = stage.worker(model={"target": target})
        stage.begin()
        for server in (stage.server, *others):
            stage.pause(3, 5)
            stage.fault("SIGKILL of one of three model servers")
            server.kill()
            stage.wait(lambda at=server: _state(stage, at) == "outage", "it is known to be gone")  # type: ignore[misc]
            stage.progress()
            stage.check(worker.ready, "the worker is ready")
            server.start()
            stage.fault("it is back")
            stage.wait(lambda at=server: _state(stage, at) == "ok", "it is used again")  # type: ignore[misc]
            stage.progress()
        stage.finish()
        stage.check(not worker.said("the model server cannot be used"), "consumption was never paused for the model")
    finally:
        for server in others:
            server.kill()


def _state(stage: Stage, server: ModelServer) -> str:
    """Of an endpoint, as the worker's status says."""
    endpoints = (stage.workers[0].get("/status")[1] or {"model": {"endpoints": []}})["model"]["endpoints"]
    return next((str(each["state"]) for each in endpoints if each["address"] == server.target), "")


SCENARIOS = (
    Scenario(
        "model_killed",
        "three times SIGKILL of the model server, away for a few seconds",
        "the worker pauses (outage), no dead letter and no copy in either mode",
        _killed,
    ),
    Scenario(
        "model_one_of_three",
        "SIGKILL of each of three model servers in turn, each away until the worker knows and goes on",
        "the others do its work: consumption is never paused, the worker stays ready, no dead letter and no copy",
        _one_of_three,
    ),
    Scenario(
        "model_hung",
        f"SIGSTOP of the model server for {HUNG_SECONDS:.0f} s",
        "calls run into their deadline, no dead letter and no copy in either mode",
        _hung,
    ),
    Scenario(
        "model_slow",
        "the model server takes ten times as long for 12 s",
        "it takes longer, no pause for an outage, no dead letter and no copy in either mode",
        _slow,
    ),
    Scenario(
        "model_swapped",
        "a new version answers from one call to the next, twice",
        "results name the version that answered, all three occur; no dead letter and no copy in either mode",
        _swapped,
    ),
    Scenario(
        "model_garbage",
        "answers that are not finite, then answers of a wrong shape, for 8 s each",
        "a deployment fault: paused, not ready, by itself again when mended; no dead letter and no copy in either mode",
        _garbage,
    ),
    Scenario(
        "model_outage",
        f"no model server for {OUTAGE_SECONDS:.0f} s",
        "workers stay alive and keep their partitions; ZERO dead letters of it, no copy in either mode",
        _outage,
    ),
    Scenario(
        "poison",
        "one review of which a window kills the model server's process whenever it is sent; a supervisor restarts it",
        "exactly this one becomes a dead letter (extract/Poison), its neighbours are answered; no copy in either mode",
        _poisoned,
    ),
)
