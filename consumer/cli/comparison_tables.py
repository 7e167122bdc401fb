"""A comparison of ``rexstream compare`` for a terminal: tables that fit its width, with Chinese names."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from rich.table import Column, Table
from rich.text import Text

from consumer.cli.evaluation_tables import MOST_ROWS, SHOWN_CHARS, number_table, on_a_line, shown_path, titled
from consumer.evaluation.comparison import SIDES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from consumer.cli.evaluation_tables import NumberRow
    from consumer.evaluation.agreement import Agreement, Compared, Move, Scores
    from consumer.evaluation.comparison import Comparison, Gain
    from consumer.evaluation.paired_times import PairedTimes
    from consumer.evaluation.paths import NamedPath

SHOWN_MOVES: Final = 15

_AGREEMENT: Final = (
    ("agree", 6),
    ("95 %", 11),
    ("both", 5),
    ("only old", 8),
    ("only new", 8),
    ("same", 5),
    ("texts", 5),
)
_SCORES: Final = (("both", 5), ("old", 5), ("new", 5), ("shift", 5), ("only old", 8), ("only new", 8))
_GOLD: Final = (("old", 6), ("new", 6), ("new-old", 7), ("95 %", 16), ("gold", 5))
"""Numbers of a table, with the width of each."""


def comparison_tables(found: Comparison, examples: Sequence[Compared], width: int) -> Iterator[RenderableType]:
    """The parts of a comparison, one below the other."""
    yield titled(
        "Agreement: F of the paths of one side against the other's; same: share of texts",
        _by_task(_AGREEMENT, [(each.task, each.type, _agreement(each)) for each in found.agreements], width),
    )
    if found.moves:
        yield titled("Classes that changed", _moves(found.moves))
    if any(each.both or each.only_old is not None or each.only_new is not None for each in found.scores):
        yield titled(
            "Mean scores of paths that both found, and that one side alone found",
            number_table(_SCORES, [(Text(each.task), *_scores(each)) for each in found.scores], width),
        )
    if found.gains:
        rows = [(each.task, each.type, _gain(each)) for each in found.gains]
        yield titled("Against the gold: F1 (strict), or accuracy", _by_task(_GOLD, rows, width))
        for side, each in zip(SIDES, found.calibrations, strict=True):
            if each is not None:
                yield Text(
                    f"  calibration of {side}: {each.facts} facts, mean score {each.mean_score:.3f}, right "
                    f"{each.share_right:.3f}, expected calibration error {each.ece:.3f}"
                )
    if found.times is not None:
        yield titled("Time an extraction, the sides asked in turns", Text(_times(found.times)))
    if examples:
        yield _examples(examples)


def _by_task(
    columns: Sequence[tuple[str, int]], figures: Sequence[tuple[str, str | None, Sequence[str]]], width: int
) -> Table:
    """Rows of (task, type or None, numbers): a task with its types below it, the first MOST_ROWS of them."""
    rows: list[NumberRow] = []
    for task, group in groupby(figures, key=lambda each: each[0]):
        inside = list(group)
        if rows:
            rows.append(())
        for _, name, numbers in inside[: 1 + MOST_ROWS]:
            rows.append((Text(task, style="bold") if name is None else Text(name), *numbers))
        if len(inside) > 1 + MOST_ROWS:
            rows.append((Text(f"… {len(inside) - 1 - MOST_ROWS} more in --json", style="dim"),))
    return number_table(columns, rows, width)


def _agreement(each: Agreement) -> tuple[str, ...]:
    only_old, only_new = each.old - each.both, each.new - each.both
    counts = (each.both, only_old, only_new)
    same = f"{each.same / each.texts:.3f}" if each.texts else "–"
    return f"{each.value:.3f}", _interval(each.interval), *map(str, counts), same, str(each.texts)


def _scores(each: Scores) -> tuple[str, ...]:
    means = (each.both_old, each.both_new, each.shift, each.only_old, each.only_new)
    return str(each.both), *("–" if mean is None else f"{mean:.3f}" for mean in means)


def _gain(each: Gain) -> tuple[str, ...]:
    interval = "–" if each.f1.interval is None else "{:+.3f} to {:+.3f}".format(*each.f1.interval)
    return f"{each.f1.old:.3f}", f"{each.f1.new:.3f}", f"{each.f1.value:+.3f}", interval, str(each.gold)


def _times(times: PairedTimes) -> str:
    sides = "".join(
        f"  {side} {each.p50:.1f} ms (95th percentile {each.p95:.1f})\n"
        for side, each in zip(SIDES, (times.old, times.new), strict=True)
    )
    between = "one turn, which may be chance"
    if times.interval is not None:
        between = "{:.2f}–{:.2f}, median of {} turns".format(*times.interval, times.turns)
    return f"{sides}  new / old {times.ratio:.2f} ({between})"


def _moves(moves: Sequence[Move]) -> Table:
    table = Table(
        *(Column(name, overflow="fold") for name in ("task", *SIDES)),
        Column("texts", justify="right", no_wrap=True),
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold",
    )
    for each in moves[:SHOWN_MOVES]:
        names = (Text(" + ".join(classes) or "none") for classes in (each.old, each.new))
        table.add_row(Text(each.task), *names, str(each.texts))
    if len(moves) > SHOWN_MOVES:
        table.add_row(Text(f"… {len(moves) - SHOWN_MOVES} more in --json", style="dim"))
    return table


def _examples(examples: Sequence[Compared]) -> RenderableType:
    table = Table.grid(Column(justify="right", no_wrap=True), Column(overflow="fold"), padding=(0, 1, 0, 0))
    for each in examples:
        text = each.text if len(each.text) <= SHOWN_CHARS else each.text[: SHOWN_CHARS - 1] + "…"
        table.add_row(Text(str(each.number), style="bold"), Text(f"{on_a_line(text)}  [{each.task}]"))
        for mark, paths, style in (("−", each.only_old, "yellow"), ("+", each.only_new, "green")):
            for line in _lines(paths):
                table.add_row(mark, Text(line, style=style))
    return titled("Largest differences, by line: − only old found it, + only new, with its score", table)


def _lines(paths: Mapping[NamedPath, tuple[float, ...]]) -> Iterator[str]:
    for path, scores in paths.items():
        yield f"{shown_path(path)}  {scores[-1]:.2f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else "{:.3f}–{:.3f}".format(*interval)
