"""Faults of the workers themselves: killed, drained, frozen, replaced, and with a wall clock that jumps."""

from __future__ import annotations

import os
import signal
import struct
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.scenario import RULES, Scenario
from chaos.stage import CLASSIC, EXIT_FENCED, IN_FLIGHT_EVENTS, KIP_848, TRANSACTION_TIMEOUT_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.stage import Stage
    from chaos.worker import Worker

CLOCK_SHIM = Path(__file__).resolve().parents[1] / "clock"
FROZEN_SECONDS = 12.0
"""Beyond the session timeout (6 s) and the transaction timeout."""


def _sigkill(stage: Stage) -> None:
    stage.set_up()
    # The slower the model, the more a worker has in hand when it is killed.
    stage.server.order(slow=5.0)
    stage.worker()
    stage.worker()
    stage.begin()
    stage.pause(2)
    for _ in range(4):
        stage.pause(0.5, 4)
        victim = stage.random.choice(stage.running)
        stage.fault(f"SIGKILL of worker {victim.number}", ended=1)
        victim.kill()
        stage.worker(wait=False)
    stage.progress()
    stage.finish()


def _sigkill_holding(stage: Stage) -> None:
    stage.set_up()
    worker = stage.worker()
    stage.begin()
    stage.progress()
    stage.fault("SIGSTOP of the model server")
    stage.server.hang()
    stage.wait(lambda: worker.in_flight >= IN_FLIGHT_EVENTS // 2, "the worker holds events that the model has not seen")
    worker = _replaced(stage, worker)
    stage.server.go_on()
    stage.progress()
    stage.fault("nobody may write to the result topic")
    stage.topics.forbid_writing(stage.output)
    stage.wait(lambda: "output" in worker.paused, "the worker holds results that nobody takes")
    worker = _replaced(stage, worker)
    stage.topics.allow_writing(stage.output)
    stage.progress()
    stage.finish()


def _replaced(stage: Stage, worker: Worker) -> Worker:
    """Killed once whatever it would commit too early has had its time."""
    stage.pause(2)
    stage.fault(f"SIGKILL of worker {worker.number}", ended=1)
    worker.kill()
    return stage.worker(wait=False)


def _sigterm(stage: Stage) -> None:
    stage.set_up()
    stage.worker()
    stage.worker()
    stage.begin()
    stage.pause(2)
    for _ in range(4):
        stage.pause(0.5, 4)
        victim = stage.random.choice(stage.running)
        stage.fault(f"SIGTERM of worker {victim.number}")
        code = victim.drain()
        stage.check(code == 0, f"worker {victim.number} drained with exit code {code}")
        stage.worker(wait=False)
    stage.progress()
    stage.finish()


def _sigstop(stage: Stage) -> None:
    stage.set_up()
    zombie = stage.worker()
    other = stage.worker()
    stage.begin()
    stage.wait(lambda: zombie.assignment == other.assignment == 2, "two partitions each")
    stage.pause(2, 4)
    stage.fault(f"SIGSTOP of worker {zombie.number} for {FROZEN_SECONDS:.0f} s", ended=1)
    zombie.signal(signal.SIGSTOP)
    stage.pause(FROZEN_SECONDS)
    stage.wait(lambda: other.assignment == 4, "the other worker has all partitions")
    stage.fault(f"SIGCONT of worker {zombie.number}")
    zombie.dismissed = True  # if it ends now, that is looked at here
    zombie.signal(signal.SIGCONT)

    def ended_or_back() -> bool:
        # Just awake it still believes in what it had.
        return not zombie.running or (zombie.said("lost ") and zombie.assignment == 2)

    stage.wait(ended_or_back, "the zombie ended, or lost its partitions and came back to the group for a share of them")
    if zombie.running:
        stage.note("the zombie dropped its epochs and joined again")
    else:
        stage.check(
            stage.mode == "exactly_once" and zombie.exit_code == EXIT_FENCED,
            f"the zombie ended with exit code {zombie.exit_code}",
        )
        stage.note(f"the zombie was fenced: exit code {zombie.exit_code}")
        stage.worker()
    stage.progress()
    stage.finish()


def _rolling_restart(stage: Stage) -> None:
    stage.set_up()
    for _ in range(4):
        stage.worker(wait=False)
    for worker in stage.workers:
        worker.wait_until_ready()
    stage.begin()
    stage.pause(3)
    for old in list(stage.workers):
        stage.fault(f"SIGTERM of worker {old.number}, then its replacement", ended=1)
        code = old.drain()
        stage.check(code == 0, f"worker {old.number} drained with exit code {code}")
        stage.worker()
    stage.progress()
    stage.finish()


def _storm(stage: Stage, client: Mapping[str, Any]) -> None:
    stage.set_up()
    for _ in range(2):
        stage.worker(client=client)
    stage.begin()
    for _ in range(9):
        stage.pause(2, 4)
        leaves = len(stage.running) > 1 and (len(stage.running) == 4 or stage.random.random() < 0.5)
        if not leaves:
            joining = stage.worker(client=client, wait=False)
            stage.fault(f"worker {joining.number} joins", ended=len(stage.running))
            continue
        victim = stage.random.choice(stage.running)
        hard = stage.random.random() < 0.3
        stage.fault(f"worker {victim.number} {'is killed' if hard else 'leaves'}", ended=len(stage.running))
        if hard:
            victim.kill()
        else:
            _check_exit(stage, victim)
    stage.progress()
    stage.finish()


def _check_exit(stage: Stage, victim: Worker) -> None:
    code = victim.drain()
    stage.check(code == 0, f"worker {victim.number} left with exit code {code}")


def _clock_jump(stage: Stage) -> None:
    stage.set_up()
    offset = stage.folder / "clock-offset"
    offset.write_bytes(bytes(8))
    path = os.pathsep.join((str(CLOCK_SHIM), os.environ.get("PYTHONPATH", "")))
    worker = stage.worker(environment={"PYTHONPATH": path, "CHAOS_CLOCK_OFFSET": str(offset)})
    stage.begin()
    for seconds in (3600.0, -3600.0, 0.0):
        stage.pause(3, 6)
        stage.fault(f"the worker's wall clock is {seconds:+.0f} s off")
        # In place: the worker has it mapped.
        with offset.open("r+b") as mapped:
            mapped.write(struct.pack("d", seconds))
        stage.progress()
        stage.check(worker.get("/livez")[0] == 200, "the worker is alive")
    stage.finish()


SCENARIOS = (
    Scenario(
        "worker_sigkill",
        "two workers; four times at random moments SIGKILL of one, and a new one",
        "the others take over; copies only of what was in flight",
        _sigkill,
    ),
    Scenario(
        "worker_sigkill_holding",
        "SIGKILL of the only worker while it holds all it may: first because the model server hangs, then because the "
        "result topic refuses",
        "its successor answers all of it",
        _sigkill_holding,
        kafka=RULES,
    ),
    Scenario(
        "worker_sigterm",
        "two workers; four times at random moments SIGTERM of one, and a new one",
        "each drains with exit code 0; no copy in either mode",
        _sigterm,
    ),
    Scenario(
        "worker_sigstop",
        f"SIGSTOP of one of two workers for {FROZEN_SECONDS:.0f} s (session timeout 6 s, transaction timeout "
        f"{TRANSACTION_TIMEOUT_MS // 1000} s), then SIGCONT",
        "the other takes over; the zombie drops its epochs and joins again, or (exactly_once) is fenced, exit code 4",
        _sigstop,
    ),
    Scenario(
        "rolling_restart",
        "four workers under load, one after the other SIGTERM and a replacement",
        "each drains with exit code 0",
        _rolling_restart,
    ),
    Scenario(
        "storm_classic",
        "workers join, leave and are killed every 2 to 4 s, cooperative-sticky",
        "whoever leaves on SIGTERM ends with exit code 0",
        partial(_storm, client=CLASSIC),
    ),
    Scenario(
        "storm_kip848",
        "workers join, leave and are killed every 2 to 4 s, group.protocol consumer",
        "whoever leaves on SIGTERM ends with exit code 0",
        partial(_storm, client=KIP_848),
    ),
    Scenario(
        "clock_jump",
        "the worker's wall clock (time.time, through a sitecustomize) jumps to +1 h, to -1 h and back",
        "it goes on; no copy in either mode",
        _clock_jump,
    ),
)
