"""The whole stack, rehearsed: what compose starts, as processes on this machine, under load, with what happens to it.

make rehearsal                                    both modes, five minutes on two busy cores
make rehearsal ARGS="--mode exactly_once"         one mode, with every step
make rehearsal ARGS="--rate 60 --keep logs"       more load; logs and data stay

Exit code 1 when a promise does not hold, 75 when something that it needs cannot be had.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from apache_kafka import KafkaUnavailable
from apicurio import RegistryAbsent
from chaos.runner import say
from chaos.scenario import Failed
from deploy.chart import ROOT
from deploy.tools import UNAVAILABLE
from rehearsal.act import Act
from rehearsal.report import alert_table, audit_table, measure, summary, write
from rehearsal.stack import Stack
from rehearsal.steps import BRIEF, STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.scenario import Mode
    from rehearsal.report import Measured

RATE = 20.0
REPORT = ROOT / "build" / "rehearsal" / "report.md"


@click.command()
@click.option("--mode", type=click.Choice(("at_least_once", "exactly_once")), help="One mode, with every step.")
@click.option("--rate", type=float, default=RATE, show_default=True, help="Reviews a second.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for logs and data; logs of failures stay anyway.")
def main(mode: Mode | None, rate: float, keep: Path | None) -> None:
    """Rehearse what an operator does and what happens to him, and audit every record."""
    plan: list[tuple[Mode, Sequence[Callable[[Act], None]]]] = [
        ("at_least_once", STEPS["at_least_once"]),
        ("exactly_once", BRIEF),
    ]
    if mode is not None:
        plan = [(mode, STEPS[mode])]
    folder = keep or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    folder.mkdir(parents=True, exist_ok=True)
    began, broken = time.monotonic(), ["it did not come to its end"]
    try:
        with Stack(folder, say) as stack:
            acts: list[Measured] = []
            for its_mode, steps in plan:
                say(f"--- {its_mode}")
                acts.append(_perform(stack, its_mode, rate, steps, folder))
            seconds = time.monotonic() - began
            head = (
                f"{time.strftime('%Y-%m-%d %H:%M')}, {seconds:.0f} s on {os.cpu_count()} cores (load average "
                f"{os.getloadavg()[0]:.0f}), {rate:.0f} reviews a second, Apache Kafka {stack.kafka.version}, "
                f"Apicurio Registry {stack.registry.version}."
            )
            write(REPORT, head, acts, stack.prometheus)
            broken = [each for measured in acts for each in measured.broken()]
    except (KafkaUnavailable, RegistryAbsent, FileNotFoundError) as absent:
        say(f"not rehearsed: {absent}")
        sys.exit(UNAVAILABLE)
    finally:
        if keep is None and not broken:
            shutil.rmtree(folder, ignore_errors=True)
        elif broken:
            say(f"the logs are in {folder}")
    for measured in acts:
        print(f"\n{measured.act.mode}\n")
        for lines in (summary(measured), audit_table(measured), alert_table(measured)):
            print("\n".join(lines) + "\n")
    say(f"{seconds:.0f} s; report: {REPORT.relative_to(ROOT)}")
    for each in broken:
        say(f"BROKEN: {each}")
    sys.exit(1 if broken else 0)


def _perform(stack: Stack, mode: Mode, rate: float, steps: Sequence[Callable[[Act], None]], folder: Path) -> Measured:
    place = folder / mode
    place.mkdir()
    act = Act(stack, mode, rate, place, say)
    try:
        act.begin()
        for play in steps:
            play(act)
        act.finish()
    except (Failed, RuntimeError) as failed:
        # Written down as a broken promise of its step; nothing after it can be judged.
        say(f"   ended early: {failed}")
    finally:
        act.close()
    return measure(act, stack.prometheus)


if __name__ == "__main__":
    main()
