"""What the figures of all contenders say: rows, goals and plots for the report of ``make bench``."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.peers.measures import Audit, Latency, Throughput

TIED: Final = 0.95
"""At least this part of another's throughput is a tie: runs of the same contender differ by as much."""


class Figures:
    """Of one contender; what was not measured stays empty."""

    def __init__(self) -> None:
        self.instant: list[Throughput] = []
        """One a round, so that those of a round make pairs. So are ``bound``."""
        self.bound: list[Throughput] = []
        self.latency: Latency | None = None
        self.audit: Audit | None = None
        self.memory: dict[int, float] = {}
        """MB by the lag in records."""
        self.error: str | None = None
        """Why the rest was not measured."""


def section(found: Mapping[str, Figures], worker: str, rate: float | None, notes: Sequence[str]) -> dict[str, Any]:
    """One section of the report; ``found`` in the order of the rows, ``rate`` in events a second of the latency."""
    measured = {name: figures for name, figures in found.items() if figures.instant or figures.bound}
    others = [name for name in measured if name != worker]
    rows = [[name, *_ratios(measured, worker, name)] for name in others]
    missing = [[name, figures.error] for name, figures in found.items() if figures.error is not None]
    tables: list[dict[str, Any]] = [_absolute(measured, rate)]
    if missing:
        tables.append({"title": "Not measured, or not to the end", "columns": ["contender", "why"], "rows": missing})
    return {
        "title": "Worker against peers",
        "claim": (
            "Same broker, model server, events, windows and guarantee (at least once). Each peer has the project's "
            "engine; 'sorted' ones also the loop's batches: 256 records, windows in order of length, 16,384 padded "
            "tokens. Ratios above 1 in events/s and below 1 in CPU are for the worker."
        ),
        "columns": [
            *("worker against", "instant model: events/s", "range", "CPU an event", "range"),
            *("model is the bottleneck: events/s", "range"),
        ],
        "rows": rows,
        "notes": list(notes),
        "goals": [
            *(_goals(measured, worker, others) if worker in measured and others else []),
            *(_exact(name, figures.audit) for name, figures in found.items() if name not in measured and figures.audit),
        ],
        "tables": tables,
        "plots": _plots(measured),
    }


def _ratios(found: Mapping[str, Figures], worker: str, name: str) -> list[float | str | None]:
    ours, theirs = found.get(worker, Figures()), found[name]
    return [
        *_paired(ours.instant, theirs.instant, lambda run: run.events_per_second),
        *_paired(ours.instant, theirs.instant, lambda run: run.cpu_ms_per_event),
        *_paired(ours.bound, theirs.bound, lambda run: run.events_per_second),
    ]


def _paired(
    ours: Sequence[Throughput], theirs: Sequence[Throughput], of: Callable[[Throughput], float]
) -> tuple[float | None, str | None]:
    """The median ratio of the rounds in which both were measured, and its range."""
    ratios = [of(one) / of(other) for one, other in zip(ours, theirs, strict=False) if of(other) > 0]
    if not ratios:
        return None, None
    return statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"


def _absolute(found: Mapping[str, Figures], rate: float | None) -> dict[str, Any]:
    lags = sorted({lag for figures in found.values() for lag in figures.memory})
    at = f" at {rate:.0f}/s" if rate is not None else ""
    rows: list[list[float | str | None]] = []
    for name, figures in found.items():
        latency, audit = figures.latency, figures.audit
        rows.append(
            [
                name,
                _median([run.events_per_second for run in figures.instant]),
                _median([run.cpu_ms_per_event for run in figures.instant]),
                _median([run.events_per_second for run in figures.bound]),
                latency.median if latency else None,
                latency.p99 if latency else None,
                audit.duplicates if audit else None,
                audit.lost if audit else None,
                *(figures.memory.get(lag) for lag in lags),
            ]
        )
    columns = [
        *("contender", "instant: events/s", "CPU ms an event", "bottleneck: events/s"),
        *(f"p50 ms{at}", f"p99 ms{at}", "duplicates after SIGKILL", "lost"),
        *(f"MB at a lag of {lag:,}" for lag in lags),
    ]
    kept = [number for number in range(len(columns)) if any(row[number] is not None for row in rows)]
    return {
        "title": "Figures of this run, on this machine",
        "columns": [columns[number] for number in kept],
        "rows": [[row[number] for number in kept] for row in rows],
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _goals(found: Mapping[str, Figures], worker: str, others: Sequence[str]) -> list[dict[str, Any]]:
    ours = found[worker]
    goals = []
    for goal, runs, least in (
        ("model is the bottleneck: ahead of every peer in events/s", "bound", 1.0),
        (f"instant model: first or tied (at least {TIED} of the fastest) in events/s", "instant", TIED),
    ):
        ratios = {
            name: _paired(getattr(ours, runs), getattr(found[name], runs), lambda run: run.events_per_second)
            for name in others
        }
        known = {name: (ratio, span) for name, (ratio, span) in ratios.items() if ratio is not None}
        if known:
            closest, (ratio, span) = min(known.items(), key=lambda item: item[1][0])
            met = ratio > least if least == 1.0 else ratio >= least
            goals.append({"goal": goal, "found": f"{ratio:.2f} ({span}) against {closest}", "met": met})
    for lag in sorted(ours.memory):
        theirs = {name: found[name].memory[lag] for name in others if lag in found[name].memory}
        goals.append(_least(f"least memory at a lag of {lag:,}", ours.memory[lag], theirs, "MB"))
    if ours.audit is not None:
        twice = {name: found[name].audit.duplicates for name in others if found[name].audit}  # type: ignore[union-attr]
        goals.append(_least("fewest duplicates after SIGKILL", ours.audit.duplicates, twice, "duplicates"))
        lost = ours.audit.lost
        goals.append({"goal": "nothing lost after SIGKILL", "found": f"{lost} lost", "met": lost == 0})
    return goals


def _exact(name: str, audit: Audit) -> dict[str, Any]:
    """Of a contender that only was killed: the worker in exactly_once, whose results a reader sees committed."""
    found = f"{audit.duplicates} duplicates, {audit.lost} lost"
    return {"goal": f"{name}: nothing twice or lost after SIGKILL", "found": found, "met": not any(audit)}


def _least(goal: str, ours: float, theirs: Mapping[str, float], unit: str) -> dict[str, Any]:
    if not theirs:
        return {"goal": goal, "found": f"{ours:.0f} {unit}, and no other was measured", "met": False}
    name, least = min(theirs.items(), key=lambda item: item[1])
    return {"goal": goal, "found": f"{ours:.0f} {unit}; least of the others {least:.0f} ({name})", "met": ours <= least}


def _plots(found: Mapping[str, Figures]) -> list[dict[str, Any]]:
    plots = []
    for title, runs in (
        ("Model is the bottleneck, mixed lengths", [figures.bound for figures in found.values()]),
        ("Instant model", [figures.instant for figures in found.values()]),
    ):
        rates = [[run.events_per_second for run in one] for one in runs]
        series = {
            "name": "median, with range of the rounds",
            "y": [_median(one) for one in rates],
            "low": [min(one, default=None) for one in rates],
            "high": [max(one, default=None) for one in rates],
        }
        plots.append(_bars(title, "events/s", list(found), [series]))
    lags = sorted({lag for figures in found.values() for lag in figures.memory})
    if lags:
        memory = [
            {"name": f"lag {lag:,}", "y": [figures.memory.get(lag) for figures in found.values()]} for lag in lags
        ]
        plots.append(_bars("Peak memory under a lag", "resident MB", list(found), memory))
    late = [figures.latency for figures in found.values()]
    if any(late):
        late_series = [
            {"name": "p50", "y": [one.median if one else None for one in late]},
            {"name": "p99", "y": [one.p99 if one else None for one in late]},
        ]
        plots.append({**_bars("Latency at the same load", "ms", list(found), late_series), "log": "y"})
    return plots


def _bars(title: str, unit: str, names: list[str], series: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": "bars",
        "title": title,
        "xlabel": "contender",
        "ylabel": unit,
        "log": False,
        "x": names,
        "series": series,
    }
