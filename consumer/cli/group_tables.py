"""What ``rexstream status`` found, as tables that fit a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from rich.table import Column, Table
from rich.text import Text

from consumer.cli.group_report import UNREMARKABLE
from consumer.cli.record_lines import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from consumer.cli.group_report import Report, ServerRow, VersionRow, WorkerRow

_WIDE, _WIDER = 100, 130
"""Width from which there is room for a worker's version and model, and for its address and wait."""
MOST_PROBLEMS: Final = 30
"""Sentences that are shown; JSON has all."""
_COLOURS = {"consuming": "green", "ok": "green", "draining": "yellow", "starting": "yellow", "trial": "yellow"}


def report_tables(report: Report, width: int, *, problems_first: bool = False) -> Iterator[RenderableType]:
    """``width`` is in columns of the screen.

    With ``problems_first`` they stand above the tables: for a screen that is cut off at its end.
    """
    yield _head(report)
    if problems_first:
        yield from _problems(report.problems)
    if report.workers or report.unreached:
        yield Text("\nWorkers", style="bold")
        yield _workers(report, width)
    if any(row.variants is not None for row in report.workers):
        yield Text("\nCanary and bundles", style="bold")
        yield _variants(report.workers)
    if report.topics:
        yield Text("\nTopics", style="bold")
        yield _topics(report)
    if report.servers:
        yield Text("\nModel servers", style="bold")
        yield _servers(report.servers)
    if report.versions:
        yield Text("\nModel versions, last minute", style="bold")
        yield _versions(report.versions)
    if not problems_first:
        yield from _problems(report.problems)


def _problems(problems: Sequence[str]) -> Iterator[Text]:
    if not problems:
        yield Text("\nAll well.", style="green")
        return
    yield Text("\nNot as it should be", style="bold red")
    for problem in problems[:MOST_PROBLEMS]:
        yield Text(f"- {printable(problem)}")
    if (more := len(problems) - MOST_PROBLEMS) > 0:
        yield Text(f"and {more} more, which --json has.", style="dim")


def _head(report: Report) -> Text:
    group = report.group
    if group["members"] is None:
        who = f"{len(report.workers) + len(report.unreached)} named"
    elif group["state"] == "DEAD":
        who = f"group {group['name']}: not there"
    else:
        kind = "KIP-848" if group["protocol"] == "CONSUMER" else "classic"
        who = f"group {group['name']}: {group['members']} members ({kind}, {group['state'].lower()})"
    lag = "lag ?" if report.lag is None else f"lag {report.lag:,}"
    behind = ""
    if report.lag and report.seconds_behind is not None:
        behind = f", {_duration(report.seconds_behind)} of work at that rate"
    return Text.assemble(
        (printable(who), "bold"),
        f", {len(report.workers)} reached\n{report.events_per_second:,.1f} events/s, {lag}{behind}",
    )


def _workers(report: Report, width: int) -> Table:
    columns = [Column("worker", overflow="fold"), Column("state", no_wrap=True)]
    columns += [Column(head, justify="right", no_wrap=True) for head in ("parts", "lag", "events/s")]
    columns += [Column("p95 ms", justify="right", no_wrap=True)] if width >= _WIDER else []
    columns += [Column("model", overflow="fold"), Column("version", no_wrap=True)] if width >= _WIDE else []
    columns += [Column("address", overflow="fold")] if width >= _WIDER else []
    table = _table(*columns)
    for row in report.workers:
        cells = [Text(printable(row.name)), _state(row), Text(f"{len(row.partitions)}"), Text(_count(row.lag))]
        cells += [Text(f"{row.events_per_second:,.1f}")]
        cells += [Text("-" if row.p95_ms is None else f"{row.p95_ms:,.0f}")] if width >= _WIDER else []
        cells += [Text(printable(row.model)), Text(printable(row.version))] if width >= _WIDE else []
        cells += [Text(printable(row.address))] if width >= _WIDER else []
        table.add_row(*cells)
    for each in report.unreached:
        table.add_row(Text(printable(each.name)), Text("not reached", style="red"), Text(f"{len(each.partitions)}"))
    return table


def _state(row: WorkerRow) -> Text:
    """Its own word, and the reasons of pauses that somebody has to mend."""
    reasons = [reason for reason in row.paused if reason not in UNREMARKABLE and reason != row.state]
    words = row.state if row.state != "consuming" or row.ready else "not ready"
    shown = f"{words} ({', '.join(reasons)})" if reasons else words
    return Text(printable(shown), style="red" if reasons else _COLOURS.get(words, "red"))


def _variants(workers: Sequence[WorkerRow]) -> Table:
    """Of those that have several ways to the model."""
    table = _table(
        Column("worker", overflow="fold"),
        Column("share", justify="right", no_wrap=True),
        Column("canary", no_wrap=True),
        Column("bundle in use", overflow="fold"),
    )
    for row in workers:
        if (its := row.variants) is None:
            continue
        share = "-" if its.share is None else f"{its.share:.4g}"
        state = "-" if its.share is None else its.fallback or ("answers" if its.share else "no share")
        bundles = ", ".join(its.stable) or "none fits"
        if its.share is not None and its.canary != its.stable:
            bundles += f"; canary: {', '.join(its.canary) or 'none'}"
        colour = "red" if its.fallback else "green" if its.share else ""
        table.add_row(
            *(Text(printable(row.name)), Text(share), Text(printable(state), style=colour)), Text(printable(bundles))
        )
    return table


def _topics(report: Report) -> Table:
    table = _table(
        Column("topic", overflow="fold"),
        Column("parts", justify="right", no_wrap=True),
        Column("lag", justify="right", no_wrap=True),
        Column("paused", overflow="fold"),
    )
    paused: dict[str, Counter[str]] = {}
    for row in report.workers:
        for reason, topics in row.paused.items():
            for topic in topics:
                paused.setdefault(topic, Counter())[reason] += 1
    # Pauses are an input's, which may be a pattern: that has a row of its own then.
    for topic in dict.fromkeys((*report.topics, *paused)):
        found = report.topics.get(topic)
        its = paused.get(topic, Counter())
        why = ", ".join(f"{reason} ({count} of {len(report.workers)})" for reason, count in its.items())
        parts, lag = (f"{found.partitions}", _count(found.lag)) if found is not None else ("", "")
        table.add_row(Text(printable(topic)), Text(parts), Text(lag), Text(printable(why), style="red"))
    return table


def _servers(servers: dict[str, ServerRow]) -> Table:
    table = _table(
        Column("address", overflow="fold"),
        Column("state: workers", overflow="fold"),
        Column("windows in calls", justify="right", no_wrap=True),
    )
    for address, server in servers.items():
        states = Text(", ").join(
            Text(f"{printable(state)}: {count}", style=_COLOURS.get(state, "red"))
            for state, count in server.states.items()
        )
        table.add_row(Text(printable(address)), states, Text(f"{server.in_flight:,}"))
    return table


def _versions(versions: dict[str, VersionRow]) -> Table:
    heads = ("workers", "calls", "failed", "results", "empty", "per result")
    table = _table(Column("model", overflow="fold"), *(Column(head, justify="right", no_wrap=True) for head in heads))
    for model, each in versions.items():
        empty = f"{each.empty_results / each.results:.1%}" if each.results else "-"
        mean = f"{each.extractions / each.results:.2f}" if each.results else "-"
        numbers = f"{each.workers}", f"{each.calls:,}", f"{each.failed_calls:,}", f"{each.results:,}"
        table.add_row(*(Text(printable(cell)) for cell in (model, *numbers, empty, mean)))
    return table


def _table(*columns: Column) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def _count(lag: int | None) -> str:
    return "?" if lag is None else f"{lag:,}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"
