"""A report of ``rexstream evaluate`` for a terminal: tables that fit its width, with Chinese names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from consumer.evaluation.calibration import LEAST_T, MOST_T
from consumer.evaluation.extraction_scores import LAST, SEVERAL
from consumer.evaluation.report import few_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from consumer.evaluation.calibration import Calibration
    from consumer.evaluation.classification_scores import Confusion
    from consumer.evaluation.figures import Figure
    from consumer.evaluation.paths import NamedPath
    from consumer.evaluation.report import Report
    from consumer.evaluation.worst import Mistakes

MOST_ROWS: Final = 25
"""Types or classes that a table shows; files have all."""
MOST_CONFUSED: Final = 15
SHOWN_CHARS: Final = 200
"""Characters of a text that an example shows."""
_NAME: Final = 20
"""Columns of the screen that names have at least, where there is room."""
_LEAST: Final = 12
"""The same where there is none."""
_BAR: Final = 24
"""Characters of a bar that stands for all facts of a bin being right."""
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_GAP: Final = 2
"""Spaces between columns."""

NumberRow = Sequence[Text | str]
"""A name and its numbers; nothing, or a heading alone."""

_STRICT: Final = (("strict", 6), ("95 %", 11), ("span", 5), ("prec.", 5), ("recall", 6), ("found", 5), ("gold", 5))
_CLASSES: Final = (("F1", 6), ("95 %", 11), ("prec.", 5), ("recall", 6), ("found", 5), ("gold", 5))
"""Numbers of a table of figures, with the width of each."""


def report_tables(
    report: Report, examples: Sequence[Mistakes], temperature: float, width: int, *, whole: bool = True
) -> Iterator[RenderableType]:
    """The parts of a report, one below the other; if not ``whole``, examples and notes alone.

    ``temperature`` is what scores were already divided by.
    """
    if whole:
        yield from _measures(report, temperature, width)
    if examples:
        yield _examples(examples)
    for note in report.notes:
        yield Text(f"\nNote: {note}.")


def _measures(report: Report, temperature: float, width: int) -> Iterator[RenderableType]:
    extraction = [figure for figure in report.figures if "span_f1" in figure.values]
    if extraction:
        yield from _extraction(extraction, report.figures, width)
    rates = [figure for figure in report.figures if figure.section == "all" and figure not in extraction]
    if rates:
        yield from _classification(rates, report, width)
    if report.confusion is not None and len(report.confusion.classes) > 1:
        yield from _confusion(report.confusion, width)
    if report.calibration is not None:
        yield from _calibration(report.calibration, temperature, width)


def _extraction(figures: Sequence[Figure], every: Sequence[Figure], width: int) -> Iterator[RenderableType]:
    nested = any(figure.name == LAST for figure in figures)
    sections = {
        "all": "",
        "quadruples": "with categories",
        "type": "by last type" if nested else "by type",
        "first_type": "by first type",
    }
    rows: list[NumberRow] = []
    for section, heading in sections.items():
        inside = [figure for figure in figures if figure.section == section]
        if inside and heading:
            rows += [(), (Text(heading, style="bold"),)]
        for figure in inside[:MOST_ROWS]:
            name = f"2+ aspects, {figure.texts} texts" if figure.name == SEVERAL else figure.name
            rows.append((Text(name), *_main(figure), f"{figure.values['span_f1']:.3f}", *_details(figure)))
        rows += _more(len(inside))
    yield titled("Paths: F1 strict (with offsets) and of spans alone", number_table(_STRICT, rows, width))
    for figure in every:
        if figure.section == "quadruples" and figure not in figures:
            yield Text(f"  {figure.name}: {figure.main:.3f} of {figure.support} ({_interval(figure)})")


def _classification(rates: Sequence[Figure], report: Report, width: int) -> Iterator[RenderableType]:
    baseline = {figure.name: figure for figure in report.baseline.figures} if report.baseline is not None else {}
    numbers = (("model", 6), ("95 %", 11), *((("n-grams", 7), ("95 %", 11)) if baseline else ()))
    rows: list[NumberRow] = [
        (Text(each.name), *_main(each), *(_main(baseline[each.name]) if each.name in baseline else ()))
        for each in rates
    ]
    yield titled("Classes", number_table(numbers, rows, width))
    if report.baseline is not None:
        yield Text(f"  Baseline, a bag of character n-grams (naive Bayes): {report.baseline.trained_on}.", style="dim")
    classes = [figure for figure in report.figures if figure.section == "class"]
    rows = [(Text(each.name), *_main(each), *_details(each)) for each in classes[:MOST_ROWS]]
    yield titled("By class", number_table(_CLASSES, [*rows, *_more(len(classes))], width))


def _confusion(confusion: Confusion, width: int) -> Iterator[RenderableType]:
    """The matrix with numbers for the columns' classes or, where it is too wide, the most frequent confusions."""
    classes, counts = confusion.classes, confusion.counts
    none = any(row[-1] for row in counts)
    shown = len(classes) + none
    number = len(str(len(classes)))
    size = max(4, *(len(str(count)) for row in counts for count in row))
    names = max(cell_len(name) for name in classes) + number + 1
    if names + shown * (size + 1) <= width:
        heads = [*(str(place) for place in range(1, len(classes) + 1)), *(["none"] if none else [])]
        table = Table(
            Column("", min_width=names, no_wrap=True),
            *(Column(head, justify="right", width=size, no_wrap=True) for head in heads),
            box=None,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for place, (name, row) in enumerate(zip(classes, counts, strict=True)):
            if not any(row):
                continue  # predicted alone: it has a column
            cells = [
                Text(str(count) if count else "·", style="bold" if column == place else "red" if count else "dim")
                for column, count in enumerate(row[:shown])
            ]
            table.add_row(Text(f"{place + 1:>{number}} {name}"), *cells)
        yield titled("Confusion: a row is a class of the gold, a column what was predicted", table)
        return
    wrong = [
        (count, gold, name)
        for gold, row in zip(classes, counts, strict=True)
        for name, count in zip((*classes, "none"), row, strict=True)
        if count and name != gold
    ]
    wrong.sort(key=lambda each: -each[0])
    table = Table(*(Column(name, overflow="fold") for name in ("gold", "predicted")), "texts", box=None, pad_edge=False)
    for count, gold, name in wrong[:MOST_CONFUSED]:
        table.add_row(Text(gold), Text(name), str(count))
    if wrong:
        yield titled(f"Confusion: the most frequent of {len(wrong)} (the matrix of all is wider)", table)


def _calibration(found: Calibration, temperature: float, width: int) -> Iterator[RenderableType]:
    rows: list[NumberRow] = [
        (
            Text(f"{each.low:.2f}–{each.high:.2f}"),
            str(each.facts),
            f"{each.mean_score:.3f}",
            f"{each.share_right:.3f}",
            "█" * round(_BAR * each.share_right),
        )
        for each in found.bins
        if each.facts
    ]
    table = number_table((("facts", 6), ("score", 6), ("right", 6), ("", _BAR)), rows, width)
    yield titled("Calibration: scores of facts, and how many of them are right", table)
    line = (
        f"  {found.facts} facts, mean score {found.mean_score:.3f}, right {found.share_right:.3f}, "
        f"expected calibration error {found.ece:.3f}"
    )
    if found.temperature is None:
        yield Text(f"{line}. No temperature was fitted: {few_facts(found)}.")
        return
    line += f"; {found.ece_after:.3f} with a temperature of {found.temperature:.2f} (cross-fitted)"
    if found.temperature > MOST_T * 0.99:
        line += ", the highest that is tried: these scores do not tell right from wrong"
    if found.temperature < LEAST_T * 1.01:
        line += ", the lowest that is tried: too few facts are wrong to tell how sure the model should be"
    if temperature != 1:
        line += f", {found.temperature * temperature:.2f} with the {temperature:g} of --temperature"
    yield Text(f"{line}.")


def _examples(examples: Sequence[Mistakes]) -> RenderableType:
    table = Table.grid(Column(justify="right", no_wrap=True), Column(overflow="fold"), padding=(0, 1, 0, 0))
    for each in examples:
        text = each.text if len(each.text) <= SHOWN_CHARS else each.text[: SHOWN_CHARS - 1] + "…"
        table.add_row(Text(str(each.number), style="bold"), Text(on_a_line(text)))
        for path in each.missing:
            table.add_row("−", Text(shown_path(path), style="yellow"))
        for path, score in zip(each.invented, each.scores, strict=True):
            table.add_row("+", Text(f"{shown_path(path)}  {score:.2f}", style="red"))
    return titled("Worst texts, by their number in the data: − is missing, + is invented, with its score", table)


def shown_path(path: NamedPath) -> str:
    """``属性词 屏幕 → 正向情感(情感词) 清楚 [2, 4)``: types and spans, and the offsets of the last."""
    last = path[-1]
    extracted = any(fact.span is not None for fact in path)
    words = [f"{fact.type} {on_a_line(fact.span or '(product)')}" if extracted else fact.type for fact in path]
    return " → ".join(words) + (f" [{last.start}, {last.end})" if last.start is not None else "")


def on_a_line(text: str) -> str:
    """Without line ends, and without what a terminal would obey."""
    return " ".join(_CONTROLS.sub(" ", text).split())


def number_table(columns: Sequence[tuple[str, int]], rows: Sequence[NumberRow], width: int) -> Table:
    """Names, which fold where they are long, and columns of numbers, each with its width.

    Columns that do not fit are left out, the last ones first, and named below. One without a name holds bars.
    """
    needed = [_LEAST + sum(size + _GAP for _, size in columns[:end]) for end in range(1, len(columns) + 1)]
    fitting = max(1, sum(each <= width for each in needed))
    wanted = max((cell_len(str(row[0])) for row in rows if row), default=0)
    name_width = max(_LEAST, min(width - needed[fitting - 1] + _LEAST, max(_NAME, wanted)))
    table = Table(
        Column("", width=name_width, overflow="fold"),
        *(
            Column(name, justify="right" if name else "left", min_width=size, no_wrap=True)
            for name, size in columns[:fitting]
        ),
        box=None,
        padding=(0, _GAP, 0, 0),
        pad_edge=False,
        header_style="bold",
    )
    for row in rows:
        table.add_row(*row[: 1 + fitting])
    if missing := [name for name, _ in columns[fitting:] if name]:
        table.caption = f"no room for {', '.join(missing)}: {needed[-1]} columns show them"
        table.caption_justify = "left"
    return table


def _main(figure: Figure) -> tuple[str, str]:
    return f"{figure.main:.3f}", _interval(figure)


def _details(figure: Figure) -> tuple[str, str, str, str]:
    precision, recall = figure.values["precision"], figure.values["recall"]
    return f"{precision:.3f}", f"{recall:.3f}", str(figure.predicted), str(figure.support)


def _more(rows: int) -> list[NumberRow]:
    return [(Text(f"… {rows - MOST_ROWS} more in --report", style="dim"),)] if rows > MOST_ROWS else []


def titled(title: str, body: RenderableType) -> RenderableType:
    """A part of a report below its heading."""
    return Group(Text(f"\n{title}", style="bold"), body)


def _interval(figure: Figure) -> str:
    return "–" if figure.interval is None else "{:.3f}–{:.3f}".format(*figure.interval)
