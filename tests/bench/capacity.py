"""docs/capacity.md: workers and model servers for 1, 5 and 50 million reviews a day, from what was recorded.

    python tests/bench/capacity.py [--write] [--json FILE]

The same wherever it runs: it reads ``planning/recorded.json`` and the profile beside it, and simulates. Measure those
anew with ``planning/record.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.growing.draft import Draft
from bench.planning.page import page
from bench.planning.plan import GOAL_SECONDS, MILLIONS_A_DAY, assumed_accelerator, measured_cpu, plan, recorded

if TYPE_CHECKING:
    from bench.planning.plan import Plan, ServerKind

DOCUMENT: Final = Path(__file__).parents[2] / "docs/capacity.md"


def plans() -> dict[ServerKind, list[Plan]]:
    """For each kind of server and number of reviews a day."""
    found = recorded()
    kinds = (measured_cpu(), assumed_accelerator())
    return {kind: [plan(kind, found, millions) for millions in MILLIONS_A_DAY] for kind in kinds}


def section(made: dict[ServerKind, list[Plan]]) -> Draft:
    """For the report."""
    draft = Draft(
        "Capacity",
        "What a day's reviews need, computed from recorded figures by the simulator: docs/capacity.md has every "
        "assumption. Nothing is measured here, and no accelerator was measured at all.",
        ["model server", "million reviews a day", "workers", "model servers", "p99 at the peak, s"],
    )
    for kind, rows in made.items():
        for row in rows:
            draft.row(kind.title, row.millions, row.workers, row.servers, row.p99)
            goal = f"{kind.title}, {row.millions} million a day: p99 at the peak < {GOAL_SECONDS:g} s"
            draft.goal(goal, f"{row.p99:.2f} s", met=row.p99 < GOAL_SECONDS)
    return draft


@click.command()
@click.option("--quick", is_flag=True, help="Takes a few seconds as it is.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write the section of the report.")
@click.option("--write", is_flag=True, help="Write docs/capacity.md instead of printing it.")
def main(quick: bool, file: Path | None, write: bool) -> None:  # noqa: ARG001 - every benchmark takes --quick
    """Compute, and print or write."""
    made = plans()
    text = page(DOCUMENT.read_text("utf-8"), recorded(), made)
    if write:
        DOCUMENT.write_text(text, "utf-8")
    else:
        print(text)
    if file is not None:
        section(made).write(file)


if __name__ == "__main__":
    main()
