"""The part of an event that worker and loop share, on this engine and on an older one, in pairs.

    python tests/bench/engine_against_older.py [--quick] [--older 2849027] [--pairs 7] [--json FILE]

Each run is a process of its own (``bare/engine_run.py``) on the shipped sample reviews, without Kafka and without a
model. Reported is the CPU of the older engine by that of this one: the median of the pairs with the range. The older
code comes from this repository's history; without it nothing is measured.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.report.section import Goal, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
TITLE = "The engine against an older one"
CLAIM = "How much less CPU an event takes of the engine, which every worker and every bare loop on it pays."
OLDER = "2849027"
TASKS = ("product_features", "product_features,sentiment,category")
GOAL = 1.5
ROUNDS = 5


def engine_microseconds(checkout: Path, tasks: str) -> float:
    """CPU of one event, in a fresh process."""
    command = [
        sys.executable,
        str(Path(__file__).parent / "bare/engine_run.py"),
        str(ROOT / "deploy/demo-model/tokenizer.json"),
        str(ROOT / "schemas/samples/reviews.jsonl"),
        tasks,
        str(ROUNDS),
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def measured(older: Path, tasks: str, pairs: int) -> list[tuple[float, float]]:
    """The older engine and this one in turn, microseconds an event."""
    found = []
    for number in range(pairs):
        order = (older, ROOT) if number % 2 == 0 else (ROOT, older)
        costs = {checkout: engine_microseconds(checkout, tasks) for checkout in order}
        found.append((costs[older], costs[ROOT]))
        print(f"{tasks:<36} older {costs[older]:6.0f} us   this {costs[ROOT]:6.0f} us an event", flush=True)
    return found


def section(found: Sequence[tuple[str, Sequence[tuple[float, float]]]], older: str) -> Section:
    """For the report."""
    rows: list[list[str | int | float | None]] = []
    goals = []
    for tasks, pairs in found:
        ratios = [before / now for before, now in pairs]
        words = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        rows.append([tasks.replace(",", ", "), words, *medians])
        goals.append(Goal(f"older / this >= {GOAL}, {tasks}", words, statistics.median(ratios) >= GOAL))
    return Section(
        TITLE,
        CLAIM,
        columns=["tasks", "older / this, median of pairs, range", f"{older} (us)", "this (us)"],
        rows=rows,
        goals=goals,
        notes=[f"{len(found[0][1])} pairs; least of {ROUNDS} rounds over the shipped reviews in each process."],
    )


def unpacked(revision: str, folder: Path) -> str:
    """Put the code of a revision into a folder; why there is none, or nothing."""
    archive = ["git", "archive", revision, "consumer", "schemas"]
    try:
        content = subprocess.run(archive, cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"this checkout's history has no revision {revision}; name one of it with --older"
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        files.extractall(folder, filter="data")
    return ""


@click.command()
@click.option("--quick", is_flag=True, help="Three pairs.")
@click.option("--older", default=OLDER, show_default=True, help="The revision to compare with.")
@click.option("--pairs", default=7, show_default=True, help="Runs of each of the two, in turn.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(quick: bool, older: str, pairs: int, path: Path | None) -> None:
    """Measure and print; say so when it cannot be measured here."""
    with tempfile.TemporaryDirectory() as name:
        if missing := unpacked(older, Path(name)):
            result = Section(TITLE, not_measured=missing)
        else:
            found = [(tasks, measured(Path(name), tasks, 3 if quick else pairs)) for tasks in TASKS]
            result = section(found, older)
    print(f"not measured: {result.not_measured}" if result.not_measured else TITLE)
    for row in result.rows:
        print(f"{row[0]:<36} {row[1]}")
    if path is not None:
        result.write(path)


if __name__ == "__main__":
    main()
