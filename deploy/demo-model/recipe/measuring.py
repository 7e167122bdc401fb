"""The table of the model card: ``rexstream evaluate`` on validation rows and on the project's gold, line by line.

``measures`` of ``recipe.yaml`` says what is asked: a set of the recipe (its validation side, which training never
saw) or a file of the project, and options of ``rexstream evaluate``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from recipe.rows import DataError, kept_for_validation, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROJECT: Final = Path(__file__).parents[3]


class Measured(NamedTuple):
    """A line of the table. ``interval`` is of 95 %; ``baseline`` the character n-grams' value of the same metric."""

    name: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    texts: int
    baseline: float | None


def held_out_lines(path: Path, percent: int = 5) -> Iterator[str]:
    """The lines of a set whose texts are on the validation side. Raises DataError where it cannot be read."""
    for _, line in lines_of(path):
        if kept_for_validation(json.loads(line)["text"], percent):
            yield line


def measured(checkpoint: Path, measure: dict[str, Any], data: Path, folder: Path) -> Iterator[Measured]:
    """Run one evaluation and read its figures. Raises DataError for a set that is missing, or where it fails."""
    rows, report = folder / "rows.jsonl", folder / "report.json"
    if "set" in measure:
        rows.write_text("".join(held_out_lines(data / measure["set"])), "utf-8")
        if not rows.stat().st_size:
            raise DataError(f"{data / measure['set']} has no text on the validation side (5 %, by a hash of the text)")
    else:
        rows = PROJECT / measure["file"]
    options = [f"--{name}={value}" for name, value in measure.get("options", {}).items()]
    command = [sys.executable, "-m", "consumer", "evaluate", f"--data={rows}", f"--checkpoint={checkpoint.resolve()}"]
    command += [f"--report={report}", *options]
    # Its own errors go to standard error, with the way out.
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL, cwd=PROJECT).returncode:  # noqa: S603 - our own
        raise DataError(f"rexstream evaluate failed for {measure['name']!r}: {' '.join(command[3:])}")
    figures = json.loads(report.read_text("utf-8"))
    baseline = (figures.get("baseline") or {}).get("figures", ())
    for wanted in measure["figures"]:
        found = _figure(figures["figures"], wanted)
        if found is None:
            continue
        metric = next(name for name in ("f1", "accuracy", "macro_f1") if name in found)
        interval = found["intervals"].get(metric)
        beside = _figure(baseline, wanted)
        yield Measured(
            measure["name"] + ("" if wanted in _MAIN else f", {wanted}"),
            {"f1": "strict F1", "accuracy": "accuracy", "macro_f1": "macro F1"}[metric],
            found[metric],
            (interval[0], interval[1]) if interval else None,
            figures["texts"],
            beside[metric] if beside else None,
        )


_MAIN: Final = ("paths", "accuracy", "macro F1")
"""Figures that need no name of their own in the table."""


def _figure(figures: Iterable[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((figure for figure in figures if figure["name"] == name), None)


def table(lines: Iterable[Measured], before: dict[str, float]) -> str:
    """Markdown; with the values of another model beside them where there are any, keyed as ``key_of`` does."""
    head = ["| | | value | 95 % | n-grams |", "|---|---|---|---|---|"]
    if before:
        head = ["| | | before | value | 95 % | n-grams |", "|---|---|---|---|---|---|"]
    rows = []
    for line in lines:
        interval = f"{line.interval[0]:.3f}–{line.interval[1]:.3f}" if line.interval else ""
        baseline = f"{line.baseline:.3f}" if line.baseline is not None else ""
        earlier = f" {before[key_of(line)]:.3f} |" if key_of(line) in before else " |" if before else ""
        shown = f"{line.name} ({line.texts}) | {line.metric} |{earlier} {line.value:.3f} | {interval} | {baseline}"
        rows.append(f"| {shown} |")
    return "\n".join([*head, *rows])


def key_of(line: Measured) -> str:
    """What makes two lines of two models the same line."""
    return f"{line.name} / {line.metric}"
