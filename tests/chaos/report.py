"""What a run says in the end: a Markdown table for people, JSON for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.scenario import Report

_COLUMNS = (
    "scenario",
    "mode",
    "fault",
    "expected",
    "inputs",
    "results",
    "dead letters",
    "missing",
    "duplicates",
    "verdict",
    "seconds",
)


def table(reports: Sequence[Report]) -> str:
    """The runs as a Markdown table, and below it why those that failed did."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, reports)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for report in reports:
        if report.skipped:
            lines.append(f"- **{report.scenario}** ({report.mode}) was not run: {report.skipped}")
        lines += [f"- **{report.scenario}** ({report.mode}): {failure}" for failure in report.failures]
    return "\n".join(lines)


def write(path: Path, reports: Sequence[Report], seed: int, kafka: Sequence[str]) -> None:
    """Everything that is known of the runs."""
    runs = [{**asdict(report), "passed": report.passed} for report in reports]
    path.write_text(json.dumps({"seed": seed, "kafka": list(kafka), "runs": runs}, ensure_ascii=False, indent=1))


def _row(report: Report) -> tuple[str, ...]:
    copies = str(report.duplicates)
    if report.duplicates_allowed:
        copies += f" (in flight: {report.duplicates_allowed})"
    return (
        report.scenario,
        report.mode,
        report.fault,
        report.expected,
        str(report.inputs),
        str(report.results),
        str(sum(report.dead_letters.values())),
        str(report.missing),
        copies,
        "skipped" if report.skipped else "pass" if report.passed else "FAIL",
        f"{report.seconds:.0f}",
    )
