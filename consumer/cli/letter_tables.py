"""The summary of ``dead-letters list`` as tables that fit a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from consumer.cli.record_lines import besides, printable
from consumer.delivery.letter_summary import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from consumer.delivery.letter_summary import LetterSummary

MOST_CAUSES: Final = 25
MOST_HOURS: Final = 24
"""Rows that a table shows; JSON has all."""
_BAR: Final = 40
"""Columns of the screen that the longest bar has, where there is room."""
_FIRST, _LAST, _APART = 120, 100, 60
"""Width from which there is room for the first hour of a cause, for the last, and for a column for each name."""


def summary_tables(topic: str, summary: LetterSummary, width: int) -> Iterator[RenderableType]:
    """How many letters there are, why, and in which hours; ``width`` is in columns of the screen."""
    yield Text.assemble((f"{summary.total:,} dead letters", "bold"), f" in {printable(topic)}{besides(summary)}")
    if summary.total:
        yield _causes(summary, width)
        yield _hours(summary, width)
    if summary.forgetful:
        yield Text(f"Copies of a letter that are more than {summary.remembered:,} letters apart count as several.")


def summary_json(topic: str, summary: LetterSummary) -> dict[str, Any]:
    """All rows, the largest first, and what was left out."""
    return {
        "topic": topic,
        "dead_letters": summary.total,
        "replayed_before": summary.replayed,
        "copies": summary.copies,
        "other_records": summary.other_records,
        "rows": [
            {
                "topic": cause.topic,
                "stage": cause.stage,
                "class": cause.reason,
                "task": cause.task,
                "hour": None if hour is None else f"{_moment(hour):%Y-%m-%dT%H:00Z}",
                "dead_letters": count,
            }
            for (cause, hour), count in summary.rows.most_common()
        ],
        "others": summary.others,
    }


def _causes(summary: LetterSummary, width: int) -> RenderableType:
    letters = Counter[Cause]()
    hours: dict[Cause, list[int]] = {}
    for (cause, hour), count in summary.rows.items():
        letters[cause] += count
        if hour is not None:
            hours.setdefault(cause, []).append(hour)
    times = [min] * (width >= _FIRST) + [max] * (width >= _LAST)
    heads = ["stage/class", "task", "topic"] if width >= _APART else ["stage/class task topic"]
    table = _table(
        *(Column(head, overflow="fold") for head in heads),
        *(Column({min: "first (UTC)", max: "last (UTC)"}[end], no_wrap=True) for end in times),
    )
    common = letters.most_common()
    for cause, count in common[:MOST_CAUSES]:
        names = [printable(name) for name in (f"{cause.stage}/{cause.reason}", cause.task or "-", cause.topic)]
        ends = (_hour(end(hours[cause]) if cause in hours else None) for end in times)
        table.add_row(f"{count:,}", *map(Text, names if width >= _APART else [" ".join(names)]), *ends)
    rest = common[MOST_CAUSES:]
    more = sum(count for _, count in rest)
    _row(table, more + summary.others, "others")
    note = f"others: {more:,} letters of rarer causes ({len(rest):,}), which --json has." if rest else ""
    return Group(Text("\nBy cause", style="bold"), table, *_notes(note, _beyond(summary)))


def _hours(summary: LetterSummary, width: int) -> RenderableType:
    letters = Counter[int]()
    unknown = 0
    for (_, hour), count in summary.rows.items():
        if hour is None:
            unknown += count
        else:
            letters[hour] += count
    shown = sorted(letters)[-MOST_HOURS:]
    most = max((letters[hour] for hour in shown), default=1)
    bar = max(0, min(_BAR, width - 30))
    table = _table(Column("failed (UTC)", no_wrap=True), Column(no_wrap=True))
    _row(table, letters.total() - sum(letters[hour] for hour in shown), "earlier")
    for hour in shown:
        table.add_row(f"{letters[hour]:,}", _hour(hour), Text("━" * round(bar * letters[hour] / most)))
    _row(table, unknown, "unknown")
    _row(table, summary.others, "others")
    hidden = len(letters) - len(shown)
    note = f"earlier: hours ({hidden:,}) that --json has." if hidden else ""
    return Group(Text("\nBy hour", style="bold"), table, *_notes(note, _beyond(summary)))


def _table(*columns: Column) -> Table:
    letters = Column("letters", justify="right", no_wrap=True)
    return Table(letters, *columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")


def _row(table: Table, count: int, name: str) -> None:
    """A row for ``count`` letters that have none of their own, if there are any."""
    if count:
        table.add_row(f"{count:,}", Text(name, style="dim"))


def _beyond(summary: LetterSummary) -> str:
    if not summary.others:
        return ""
    return (
        f"others: {summary.others:,} letters in rows beyond the first {summary.most_rows:,}, counted together; narrow "
        "it with --since, --topic or --class."
    )


def _notes(*notes: str) -> list[Text]:
    return [Text(note, style="dim") for note in notes if note]


def _hour(hour_ms: int | None) -> str:
    return "?" if hour_ms is None else f"{_moment(hour_ms):%Y-%m-%d %H:00}"


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
