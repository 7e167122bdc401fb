"""The chaos suite: every fault on real processes and Apache Kafka itself, each with its audit.

make chaos                                            everything but the soak, half an hour or so on two cores
make chaos ARGS="--list"                              the scenarios and what each must come to
make chaos ARGS="--only worker_sigkill,leader_loss --mode exactly_once --seed 7"
make chaos ARGS="--only soak --minutes 60 --report soak/report.json"
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from chaos.catalogue import scenarios
from chaos.clusters import Clusters
from chaos.outside import PROGRAMS, Program
from chaos.report import table
from chaos.runner import Runner, say
from chaos.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.scenario import Mode

_MODES = ("at_least_once", "exactly_once")


@click.command()
@click.option("--only", help="Names, separated by commas; the others are left out.")
@click.option("--skip", help="Names, separated by commas, that are left out.")
@click.option("--mode", type=click.Choice(_MODES), help="One mode instead of both.")
@click.option("--seed", type=int, help="Chooses the random moments and the load; a new one is printed without it.")
@click.option("--minutes", type=float, default=60.0, show_default=True, help="Length of the soak.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="File for the report as JSON.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Folder for logs and data. Without it only logs of failures stay."
)
@click.option("--list", "listing", is_flag=True, help="Print the scenarios with their expectations, and end.")
def main(
    only: str | None,
    skip: str | None,
    mode: Mode | None,
    seed: int | None,
    minutes: float,
    report_file: Path | None,
    keep: Path | None,
    listing: bool,
) -> None:
    """Run scenarios against Apache Kafka. Exit code 1 when one did not come to what it must."""
    chosen = _chosen(only, skip)
    if listing:
        _list(chosen)
        return
    seed = secrets.randbelow(2**32) if seed is None else seed
    folder = keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    for needed in (folder, *([report_file.parent] if report_file else [])):
        needed.mkdir(parents=True, exist_ok=True)
    say(f"seed {seed}")
    complete = False
    try:
        with Clusters(folder) as clusters:
            runner = Runner(clusters, seed, folder, minutes, report_file)
            try:
                runner.run(chosen, mode)
                complete = True
            except KeyboardInterrupt:
                say("interrupted")
    finally:
        if keep is None:
            _clear(folder, logs=complete and all(report.passed for report in runner.reports))
    kafka = ", ".join(sorted(runner.versions)) or "not needed"
    print(f"\nseed {seed}, Apache Kafka {kafka}\n\n{table(runner.reports)}")
    sys.exit(0 if complete and runner.reports and all(report.passed for report in runner.reports) else 1)


def _clear(folder: Path, *, logs: bool) -> None:
    """Delete the brokers' data, and the logs too where nobody will want to read them."""
    for data in [folder] if logs else folder.glob("kafka-*"):
        shutil.rmtree(data, ignore_errors=True)
    if not logs:
        say(f"the logs are in {folder}")


def _chosen(only: str | None, skip: str | None) -> list[Scenario | Program]:
    everything: list[Scenario | Program] = [*scenarios(), *PROGRAMS]
    known = {each.name for each in everything}
    wanted, unwanted = (set(names.split(",")) if names else set() for names in (only, skip))
    if unknown := (wanted | unwanted) - known:
        raise click.UsageError(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    by_default = {each.name for each in everything if not (isinstance(each, Scenario) and each.on_demand)}
    return [each for each in everything if each.name in (wanted or by_default) - unwanted]


def _list(chosen: Sequence[Scenario | Program]) -> None:
    for each in chosen:
        modes = f" ({', '.join(each.modes)})" if isinstance(each, Scenario) else ""
        print(f"{each.name}{modes}\n  fault:    {each.fault}\n  expected: {each.expected}")


if __name__ == "__main__":
    main()
