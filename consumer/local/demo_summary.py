"""Report of the demo: the tables of a run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from consumer.local.demo_quality import (
    annotated,
    fact_figure,
    facts,
    label,
    label_score,
    worst_mistakes,
)
from consumer.local.wrapping import sentence, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.evaluation.paths import NamedPath
    from consumer.local.demo_events import DemoEvent
    from consumer.local.demo_outcome import Seen, WorkerNumbers


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile by linear interpolation; a lone value stands for all of them."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


def numbers_table(samples: int, seconds: float, seen: Seen, worker: WorkerNumbers) -> Table:
    """Throughput, latency, batches."""
    latencies = seen.latencies_ms
    calls = [result["timing"]["model_calls"] for result in seen.results.values()]
    rows = [
        ("reviews", f"{samples} in {seconds:.1f} s", f"{samples / seconds:.0f} reviews/s, three tasks each"),
        (
            "latency",
            " / ".join(f"{percentile(latencies, p) / 1000:.2f} s" for p in (50, 95, 99)),
            "p50 / p95 / p99, produced to result, with the whole backlog sent at once",
        ),
        (
            "batches",
            f"{worker.windows / worker.batches:.1f} windows",
            f"mean of {worker.batches} model calls (median {worker.batch_rows_p50 or 0:.0f})",
        ),
        ("padding", f"{(worker.padding_ratio or 0):.1%}", "of the tokens sent to the model"),
        ("windows per review", f"{sum(calls) / samples:.2f}", "model rows, all tasks and levels"),
        ("worker memory", f"{worker.rss_bytes / 2**20:.0f} MiB", "resident, at the end"),
    ]
    columns = (Column(style=style) for style in ("bold", "cyan", "dim"))
    table = Table(*columns, box=box.SIMPLE, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def dead_letter_table(broken: Sequence[DemoEvent], seen: Seen, width: int) -> Table:
    """What was broken on purpose, and the reason that its dead letter gives; in ``width`` columns."""
    letters = {event.key: seen.dead_letters.get(event.key, {}) for event in broken if event.value is not None}
    reasons = {key: headers.get("__dlq.errors.message", "") for key, headers in letters.items()}
    outcomes = {key: headers.get("rexstream-dlq-class", "-") for key, headers in letters.items()}
    taken = _widest([event.fault or "" for event in broken]) + _widest([*outcomes.values(), "dropped"])
    table = Table("sent", "outcome", "reason", box=box.SIMPLE_HEAD, title="Broken on purpose", **_TITLE)
    for event in broken:
        outcome = outcomes.get(event.key, "dropped")
        reason = reasons.get(event.key, "a null value has nothing to extract; it is counted")
        lines = sentence(reason, max(width - _frame(3) - taken, _NARROWEST))
        table.add_row(event.fault, Text(outcome, style="yellow" if event.key in outcomes else ""), _lines(lines, "dim"))
    return table


def _lines(lines: Iterable[str], style: str = "") -> Text:
    """Lines that fit as they are."""
    return Text("\n".join(lines), style=style)


def _frame(columns: int) -> int:
    """Cells of a table's row that hold no text: two beside each column, one between, one at each edge."""
    return 2 * columns + columns - 1 + 2


def reviews_table(samples: Sequence[DemoEvent], texts: Mapping[str, str], seen: Seen, rows: int, width: int) -> Table:
    """Some reviews with what was extracted, in ``width`` columns; what is wrong or missing is marked."""
    shown = samples[:: max(1, len(samples) // rows)][:rows]
    between = " " if width >= WIDE else "\n"
    labels = [[_compared(seen, event, task, between) for event in shown] for task in _LABELS]
    taken = sum(
        _widest([task, *(line for cell in cells for line in cell.plain.split("\n"))])
        for task, cells in zip(_LABELS, labels, strict=True)
    )
    room = max(width - _frame(4) - taken, 2 * _NARROWEST)
    found = [_facts(seen, event) for event in shown]
    facts_room = min(_widest([_FACTS, *(line.whole for lines in found for line in lines)]), room // 2)
    table = Table("review", *_LABELS, _FACTS, box=box.SIMPLE_HEAD, title=_LEGEND, **_TITLE)
    for event, category, sentiment, lines in zip(shown, *labels, found, strict=True):
        right = [(part, line.style) for line in lines for part in line.within(facts_room)]
        left = wrapped(texts[event.key].replace("\n", " "), room - facts_room, max(_REVIEW_LINES, len(right)))
        table.add_row(_lines(left), category, sentiment, Text("\n").join(Text(*part) for part in right))
    return table


WIDE: Final = 120
"""Columns of a terminal from which on a label and what is right stand on one line."""
_NARROWEST: Final = 8
"""Cells that a column of text has at least, however narrow the terminal."""
_REVIEW_LINES: Final = 3
"""Lines that a review gets, or as many as its facts have."""
_MISSED: Final = 3
"""Facts that a review lists as missed; where there are more, one less and the number of the others."""
_LABELS: Final = ("category", "sentiment")
_FACTS: Final = "aspect → opinion"
_LEGEND: Final = "What was extracted (against the annotations: ✗ wrong, ○ missed)"
_TITLE: Final[dict[str, Any]] = {"title_justify": "left", "title_style": "bold"}


def _widest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _compared(seen: Seen, event: DemoEvent, task: str, between: str) -> Text:
    found, gold = label(seen, event.key, task) or "-", event.labels[task]
    if found == gold:
        return Text(found, style="green")
    if task == "sentiment" and gold == "mixed":
        return Text(f"{found}{between}(mixed)", style="yellow")
    return Text(f"{found}{between}(is {gold})", style="red")


@dataclass(frozen=True, slots=True)
class _Line:
    """A fact as it is shown: its mark and aspect, its opinion and what is right about it."""

    aspect: str
    opinion: str
    style: str

    @property
    def whole(self) -> str:
        return f"{self.aspect} → {self.opinion}" if self.opinion else self.aspect

    def within(self, width: int) -> list[str]:
        """On one line, or the opinion below the aspect."""
        if cell_len(self.whole) <= width:
            return [self.whole]
        return [*wrapped(f"{self.aspect} →", width), *(f"  {line}" for line in wrapped(self.opinion, width - 2))]


def _facts(seen: Seen, event: DemoEvent) -> list[_Line]:
    """What was found, in the order of the text; then what was missed."""
    found = facts(seen, event.key)
    gold = found if event.facts is None else event.facts
    polarities = {_places(fact): fact[-1].type for fact in gold}
    lines = []
    for fact in sorted(found, key=_order):
        given = fact[-1].type
        right = polarities.get(_places(fact), given)
        aspect, opinion = _words(fact)
        style = {"正": "green", "负": "red"}.get(given[0], "yellow")
        mark, amended = "" if fact in gold else "✗ ", "" if right == given else f" (is {right[0]})"
        lines.append(_Line(mark + aspect, opinion + amended, style))
    known = set(map(_places, found))
    missed = [_words(fact) for fact in sorted(gold, key=_order) if _places(fact) not in known]
    listed = len(missed) if len(missed) <= _MISSED else _MISSED - 1
    lines += [_Line(f"○ {aspect}", opinion, "dim") for aspect, opinion in missed[:listed]]
    if missed[listed:]:
        lines.append(_Line(f"○ {len(missed) - listed} more", "", "dim"))
    return lines or [_Line("-", "", "dim")]


def _places(fact: NamedPath) -> tuple[tuple[int | None, int | None], ...]:
    return tuple((part.start, part.end) for part in fact)


def _words(fact: NamedPath) -> tuple[str, str]:
    """Aspect and opinion as they stand in the review."""
    words = [(part.span or "(product)").replace("\n", " ") for part in fact]
    return words[0], " → ".join(words[1:])


def _order(fact: NamedPath) -> tuple[tuple[int, str], ...]:
    return tuple((-1 if part.start is None else part.start, part.type) for part in reversed(fact))


def quality(samples: Sequence[DemoEvent], seen: Seen, width: int) -> RenderableType:
    """How often labels and facts were right, a row a task; then what the model gets wrong. In ``width`` columns."""
    rows = []
    for task in ("sentiment", "category"):
        score = label_score(samples, seen, task)
        common = ", ".join(f"{gold} read as {given} ({n})" for (gold, given), n in score.wrong.most_common(3))
        shares = f"{score.right} of {score.judged}" + (f"; {common}" if common else "")
        rows.append((task, f"{score.right / max(score.judged, 1):.0%} right", shares))
    figure = fact_figure(samples, seen)
    against = f"strict, against {figure.support:,} annotated facts in {len(annotated(samples))} reviews"
    meaning = "(aspect, opinion, places and polarity are right)"
    parts = f"precision {figure.values['precision']:.2f}, recall {figure.values['recall']:.2f}"
    if figure.interval is not None:
        parts += ", 95 % interval of F1 {:.2f} to {:.2f}".format(*figure.interval)
    rows.append(("product features", f"F1 {figure.main:.2f}", f"{against} {meaning}; {parts}"))
    table = Table(*(Column(style=style) for style in ("bold", "cyan", "")), box=None, show_header=False, pad_edge=False)
    taken = sum(_widest(column) + 2 for column in list(zip(*rows, strict=True))[:2])
    for task, right, details in rows:
        table.add_row(task, right, _lines(sentence(details, max(width - taken, _NARROWEST))))
    return Group(table, _lines(sentence(worst_mistakes(samples, seen), width)))


_PANEL: Final = 4
"""Cells of a panel's frame in a row."""


def summary(
    samples: Sequence[DemoEvent],
    broken: Sequence[DemoEvent],
    texts: Mapping[str, str],
    seconds: float,
    seen: Seen,
    worker: WorkerNumbers,
    rows: int,
    width: int,
    parameters: int,
) -> RenderableType:
    """The closing page of the demo, ``width`` columns wide. ``parameters``: of the model."""
    scores = [fact["score"] for result in seen.results.values() for path in result["extractions"] for fact in path]
    about = (
        f"The demo model has {parameters / 1e6:.1f} M parameters; the mean score of its facts is "
        f"{mean(scores) if scores else 0:.2f}. What it gets wrong is the model's fault, not the pipeline's: the "
        "published checkpoint takes its place with one `rexstream export`."
    )
    return Group(
        reviews_table(samples, texts, seen, rows, width),
        dead_letter_table(broken, seen, width),
        Panel(
            Group(quality(samples, seen, width - _PANEL), _lines(sentence(about, width - _PANEL), "dim")),
            title="accuracy",
            title_align="left",
            border_style="dim",
        ),
        numbers_table(len(samples), seconds, seen, worker),
    )
