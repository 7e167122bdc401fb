"""The report: Markdown with plots beside it, and everything in it as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from bench.report.plots import draw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.report.section import Cell, Section


INTRODUCTION = """\
Written by `make bench` ({mode}). Ratios are of pairs of runs on this machine, one after the other, with the range over
the pairs; seconds and events a second beside them hold for this machine and this hour only. To be run with nothing else
running. The command that runs a benchmark alone is below it."""


class Result(NamedTuple):
    """What became of one benchmark: a section, or ``failed`` says why there is none."""

    name: str
    command: str
    """That runs it alone."""
    seconds: float
    section: Section | None
    failed: str = ""


def write(folder: Path, mode: str, machine: Mapping[str, str], results: Sequence[Result]) -> Path:
    """Write report.md, report.json and the plots; the path of the first. Plots of an earlier report are removed."""
    for old in folder.glob("*.png"):
        old.unlink()
    lines = [
        "# Benchmarks",
        "",
        INTRODUCTION.format(mode=mode),
        "",
        "## Goals",
        "",
        *_table(["benchmark", "goal", "found", "met"], _goals(results)),
        "",
    ]
    if missing := [result for result in results if result.section is None or result.section.not_measured]:
        lines += ["## Not measured", "", *(f"- **{each.name}**: {_inline(_why(each))}" for each in missing), ""]
    lines += ["## Machine", "", *_table(["", ""], [list(each) for each in machine.items()]), ""]
    for result in results:
        if result.section is not None and not result.section.not_measured:
            lines += _shown(folder, result, result.section)
    report = folder / "report.md"
    report.write_text("\n".join(lines), "utf-8")
    whole = {
        "mode": mode,
        "machine": dict(machine),
        "benchmarks": [
            {**result._asdict(), "section": None if result.section is None else asdict(result.section)}
            for result in results
        ],
    }
    (folder / "report.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return report


def _goals(results: Sequence[Result]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for result in results:
        if result.section is None or result.section.not_measured:
            rows.append([result.name, None, "not measured", None])
            continue
        for goal in result.section.goals:
            met = "not in this run" if goal.met is None else ("yes" if goal.met else "**no**")
            rows.append([result.name, goal.goal, goal.found, met])
    return rows


def _why(result: Result) -> str:
    return result.section.not_measured if result.section is not None else result.failed


def _shown(folder: Path, result: Result, section: Section) -> list[str]:
    lines = [f"## {section.title}", "", section.claim, ""]
    if section.rows:
        lines += [*_table(section.columns, section.rows), ""]
    for table in section.tables:
        lines += [f"**{table.title}**", "", *_table(table.columns, table.rows), ""]
    for number, plot in enumerate(section.plots, 1):
        path = folder / f"{result.name}-{number}.png"
        draw(plot, path)
        lines += [f"![{plot.title}]({path.name})", ""]
    lines += [f"- {note}" for note in section.notes]
    return [*lines, f"- Alone: `{result.command}`; it took {result.seconds:.0f} s.", ""]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    return [
        "| " + " | ".join(map(_inline, columns)) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in rows),
    ]


def _cell(cell: Cell) -> str:
    """Numbers with three significant digits, whole ones as they are."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}".replace(",", " ") if isinstance(cell, int) else _inline(cell)


def _inline(text: str) -> str:
    """In one cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
