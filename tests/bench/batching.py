"""Batching policies compared in a simulator: the project's ``LeastTime`` and eleven rivals in eighteen scenarios.

    python tests/bench/batching.py [--quick | --full] [--one-setting] [--seeds 5] [--only burst] [--reviews FILE]

Each policy is tuned on a training trace of the scenario and reported on others, with the same traces and noise seeds
for all. With ``--one-setting`` it has one setting for all scenarios, the best over all training traces: what an owner
takes who cannot tune for each hour, and what policies that adapt are for. The setting ``calls`` is calls in flight for
each server; as shipped, for all servers together.

A table a scenario, best first: by p99 of the latency of events, or, where a backlog drains, by events a second. ``*``
is the best; ``=`` is tied with it: within 5 % or with overlapping 95 % intervals; ``~`` is tied by that rule, though
worse by more than 5 % in pairs of the same seed, with an interval that excludes equality. At the end stands where
``LeastTime`` is neither best nor tied. Without ``--full``: short traces, five seeds, few settings; with ``--quick`` in
some scenarios only.

Lengths are those of the sample reviews, or of the reviews in ``--reviews`` (JSON lines with ``text``, may be gzipped);
by default of the larger set of real shop reviews where the machine has it. The servers are simulated and their
figures invented, so this ranks policies and predicts no latency.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.report.section import Goal, Plot, Section, Series
from bench.simulator.contenders import CONTENDERS, OURS, UNMEASURED, cheapest, cost, in_words, run_once, training_costs
from bench.simulator.figures import figure, ratio
from bench.simulator.figures import tied as is_tied
from bench.simulator.scenarios import FULL, QUICK, SCENARIOS
from bench.simulator.trace import SAMPLES, read_lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.simulator.contenders import Values
    from bench.simulator.figures import Ratio
    from bench.simulator.outcome import Outcome
    from bench.simulator.scenarios import Scenario, Size

SHOP_REVIEWS: Final = Path(__file__).parents[3] / "shared/data/shop_reviews_train.jsonl.gz"
"""Beside the checkout, where there is such a folder."""
IN_QUICK: Final = ("steady, 80", "burst", "drain of a backlog", "one lost", "200 KB")
"""What the names of scenarios contain that a quick run has."""
TRAINING_SEED: Final = 1_000_003


class Row(NamedTuple):
    """One policy in one scenario: an outcome and its cost for each seed."""

    name: str
    setting: str
    outcomes: tuple[Outcome, ...]
    costs: tuple[float, ...]


class Verdict(NamedTuple):
    """How one policy compares with the best in one scenario; ``mark`` as in the table, empty for a loss."""

    mark: str
    best: str
    behind: Ratio


def trained(
    scenarios: Sequence[Scenario], lengths: tuple[int, ...], size: Size, *, one_setting: bool, full: bool
) -> list[list[Values]]:
    """For each scenario the settings of all policies."""
    costs: list[list[list[float]]] = []
    for scenario in scenarios:
        servers, events = scenario.build(lengths, size, TRAINING_SEED, training=True)
        costs.append(
            [
                training_costs(each, servers, events, TRAINING_SEED, drain=scenario.drain, full=full)
                for each in CONTENDERS
            ]
        )
    chosen: list[list[Values]] = []
    for row in costs:
        columns = [[other[place] for other in costs] if one_setting else [own] for place, own in enumerate(row)]
        chosen.append(
            [each.settings(full=full)[cheapest(column)] for each, column in zip(CONTENDERS, columns, strict=True)]
        )
    return chosen


def compared(
    scenario: Scenario, settings: Sequence[Values], lengths: tuple[int, ...], size: Size, seeds: int
) -> list[Row]:
    """All policies, best first."""
    runs: list[list[Outcome]] = [[] for _ in CONTENDERS]
    for seed in range(1, seeds + 1):
        servers, events = scenario.build(lengths, size, seed, training=False)
        for contender, values, outcomes in zip(CONTENDERS, settings, runs, strict=True):
            outcomes.append(run_once(contender, values, servers, events, seed))
    rows = [
        Row(one.name, in_words(values), tuple(outcomes), tuple(cost(each, drain=scenario.drain) for each in outcomes))
        for one, values, outcomes in zip(CONTENDERS, settings, runs, strict=True)
    ]
    return sorted(rows, key=lambda row: figure(row.costs).mean)


def verdict(row: Row, best: Row) -> Verdict:
    """Against the best of its scenario."""
    behind = ratio(row.costs, best.costs)
    if row is best:
        mark = "*"
    elif is_tied(figure(row.costs), figure(best.costs)):
        mark = "~" if behind.worse else "="
    else:
        mark = ""
    return Verdict(mark, best.name, behind)


def show(rows: Sequence[Row]) -> None:
    """Print the table of one scenario."""
    print(f"    {'policy':<21}{'p50 ms':>15}{'p99 ms':>17}{'events/s':>16}{'padding':>9}{'calls':>8}   tuned to")
    for row in rows:
        p50 = figure([one.percentile(0.5) * 1000 for one in row.outcomes])
        p99 = figure([one.percentile(0.99) * 1000 for one in row.outcomes])
        rate = figure([one.throughput for one in row.outcomes])
        padding = statistics.fmean(one.padding for one in row.outcomes)
        calls = statistics.fmean(one.calls for one in row.outcomes)
        print(
            f"  {verdict(row, rows[0]).mark:1} {row.name:<21}{p50.mean:9.0f} ±{p50.half:4.0f}"
            f"{p99.mean:10.0f} ±{p99.half:5.0f}{rate.mean:10.1f} ±{rate.half:4.1f}{padding:9.1%}{calls:8.0f}"
            f"   {row.setting}",
            flush=True,
        )


def summary(verdicts: dict[str, dict[str, Verdict]]) -> None:
    """Where LeastTime is not best or tied, and by how much."""
    for name, found in verdicts.items():
        losses = {scenario: one for scenario, one in found.items() if one.mark in ("", "~")}
        print(f"\n{name}: best or tied in {len(found) - len(losses)} of {len(found)} scenarios", flush=True)
        for scenario, one in losses.items():
            kind = "tied by its interval, in pairs " if one.mark else ""
            print(
                f"  {scenario:<44} {kind}{one.behind.mean:.2f} times {one.best}'s "
                f"({one.behind.low:.2f} to {one.behind.high:.2f})"
            )


def section(rows: dict[str, list[Row]], verdicts: dict[str, Verdict], seeds: int, source: str) -> Section:
    """For the report: ``rows`` and the verdict on LeastTime of each scenario."""
    table: list[list[str | int | float | None]] = []
    ratios = []
    for scenario, every in rows.items():
        ours = next(row for row in every if row.name == OURS)
        rival = next(row for row in every if row.name not in (OURS, UNMEASURED))
        ratios.append(ratio(ours.costs, rival.costs))
        marks = {"*": "best", "=": "tied", "~": "tied by its interval", "": "behind"}
        shown = f"{ratios[-1].mean:.2f} ({ratios[-1].low:.2f} to {ratios[-1].high:.2f})"
        table.append([scenario, marks[verdicts[scenario].mark], rival.name, shown])
    behind = [scenario for scenario, one in verdicts.items() if not one.mark]
    found = f"{len(verdicts) - len(behind)} of {len(verdicts)}"
    return Section(
        "Batching policies in the simulator",
        "The worker's policy and its rivals, each tuned for the scenario on a training trace and measured on others: "
        "p99 of the latency, or seconds an event where a backlog drains.",
        columns=["scenario", OURS, "best rival", f"{OURS} / best rival, mean and 95 % interval of pairs"],
        rows=table,
        goals=[
            Goal("best or tied in every scenario", found + "".join(f"; not in: {name}" for name in behind), not behind)
        ],
        notes=[
            f"{seeds} seeds. Tied: within 5 %, or with overlapping 95 % intervals.",
            f"Lengths of the reviews in {source}; the servers are simulated and their figures invented.",
        ],
        plots=[
            Plot(
                kind="bars",
                title=f"{OURS} / best rival: below 1 it is ahead",
                xlabel="",
                ylabel="p99, or seconds an event of a drain",
                x=list(rows),
                series=[
                    Series("", [one.mean for one in ratios], [one.low for one in ratios], [one.high for one in ratios])
                ],
            )
        ],
    )


@click.command()
@click.option("--quick", is_flag=True, help="Some of the scenarios.")
@click.option("--full", is_flag=True, help="Long traces, every setting, ten seeds: most of an hour.")
@click.option("--one-setting", is_flag=True, help="One setting of each policy for all scenarios.")
@click.option("--seeds", type=click.IntRange(2), help="Traces that are reported; 5, or 10 with --full.")
@click.option("--only", multiple=True, help="Scenarios whose name contains this.")
@click.option("--reviews", type=click.Path(exists=True, path_type=Path), help="Where the lengths of texts come from.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(
    quick: bool,
    full: bool,
    one_setting: bool,
    seeds: int | None,
    only: tuple[str, ...],
    reviews: Path | None,
    path: Path | None,
) -> None:
    """Compare and print."""
    source = reviews or (SHOP_REVIEWS if SHOP_REVIEWS.exists() else SAMPLES)
    lengths = read_lengths(source)
    only = only or (IN_QUICK if quick else ())
    size, seeds = (FULL, seeds or 10) if full else (QUICK, seeds or 5)
    print(f"lengths of {len(lengths)} reviews ({source}), {seeds} seeds", flush=True)
    began = time.process_time()
    scenarios = [one for one in SCENARIOS if not only or any(word in one.name for word in only)]
    settings = trained(scenarios, lengths, size, one_setting=one_setting, full=full)
    verdicts: dict[str, dict[str, Verdict]] = {OURS: {}, UNMEASURED: {}}
    compared_in: dict[str, list[Row]] = {}
    for scenario, chosen in zip(scenarios, settings, strict=True):
        rows = compared_in[scenario.name] = compared(scenario, chosen, lengths, size, seeds)
        print(f"\n{scenario.name} ({scenario.profile.name})")
        show(rows)
        for row in rows:
            if row.name in verdicts:
                verdicts[row.name][scenario.name] = verdict(row, rows[0])
    summary(verdicts)
    if path is not None:
        section(compared_in, verdicts[OURS], seeds, source.name).write(path)
    print(f"\n{time.process_time() - began:.0f} s of processor")


if __name__ == "__main__":
    main()
