"""A section of the report in the form of tests/bench/README.md, while it is put together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Draft:
    """Every method adds to it."""

    def __init__(self, title: str, claim: str, columns: list[str]) -> None:
        """``columns`` are those of its first table."""
        self._content: dict[str, Any] = {"title": title, "claim": claim, "columns": columns}
        self._content |= {part: [] for part in ("rows", "notes", "goals", "tables", "plots")}

    def row(self, *cells: str | float) -> None:
        """Of the first table."""
        self._content["rows"].append(list(cells))

    def goal(self, goal: str, found: str, *, met: bool) -> None:
        """What was to be reached."""
        self._content["goals"].append({"goal": goal, "found": found, "met": met})

    def note(self, note: str) -> None:
        """A sentence or two."""
        self._content["notes"].append(note)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """One more."""
        self._content["tables"].append({"title": title, "columns": list(columns), "rows": [list(row) for row in rows]})

    def lines(
        self,
        title: str,
        axes: tuple[str, str],
        x: Sequence[float],
        series: Mapping[str, Sequence[float]],
        log: bool | str = False,
    ) -> None:
        """A plot; ``axes`` are the labels of x and y, ``log`` is True for both, or the axis."""
        named = [{"name": name, "y": list(y)} for name, y in series.items()]
        plot = {"kind": "lines", "title": title, "xlabel": axes[0], "ylabel": axes[1], "log": log, "x": list(x)}
        self._content["plots"].append({**plot, "series": named})

    def write(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(self._content, ensure_ascii=False), "utf-8")

    def show(self) -> None:
        """Print all but the plots."""
        tables = [{**self._content, "title": ""}] if self._content["rows"] else []
        for table in (*tables, *self._content["tables"]):
            print(f"\n{table['title']}\n  {' | '.join(table['columns'])}")
            for row in table["rows"]:
                print("  " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
        print()
        for goal in self._content["goals"]:
            print(f"{'reached' if goal['met'] else 'MISSED ':<8} {goal['goal']}: {goal['found']}")
        for note in self._content["notes"]:
            print(f"- {note}")
