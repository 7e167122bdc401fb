"""Report of the demo: the tables of a run."""

from __future__ import annotations

from collections import Counter
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


def dead_letter_table(broken: Iterable[DemoEvent], seen: Seen) -> Table:
    """What was broken on purpose, and the reason that its dead letter gives."""
    columns = (Column(name, overflow="fold") for name in ("sent", "outcome", "reason"))
    table = Table(*columns, box=box.SIMPLE_HEAD, title="Broken on purpose", title_justify="left", title_style="bold")
    for event in broken:
        if event.value is None:
            table.add_row(event.fault, "dropped", "[dim]a null value has nothing to extract; it is counted[/]")
            continue
        headers = seen.dead_letters.get(event.key, {})
        table.add_row(
            event.fault,
            f"[yellow]{headers.get('rexstream-dlq-class', '-')}[/]",
            Text(headers.get("__dlq.errors.message", ""), style="dim"),
        )
    return table


def reviews_table(samples: Sequence[DemoEvent], texts: Mapping[str, str], seen: Seen, rows: int) -> Table:
    """Some reviews with what was extracted; what the model got wrong is marked with what is right."""
    table = Table(
        Column("review", ratio=5, overflow="fold"),
        Column("category", ratio=2),
        Column("sentiment", ratio=2),
        Column("aspect → opinion", ratio=4, overflow="fold"),
        box=box.SIMPLE_HEAD,
        title="What was extracted",
        title_justify="left",
        title_style="bold",
    )
    for event in samples[:: max(1, len(samples) // rows)][:rows]:
        text = texts[event.key].replace("\n", " ")
        table.add_row(
            Text(text if len(text) <= 80 else text[:79] + "…"),
            _compared(seen, event, "category"),
            _compared(seen, event, "sentiment"),
            _aspects(seen.results.get((event.key, "product_features"))),
        )
    return table


def _label(seen: Seen, key: str, task: str) -> str | None:
    result = seen.results.get((key, task))
    return result["extractions"][0][0]["type"] if result and result["extractions"] else None


def _compared(seen: Seen, event: DemoEvent, task: str) -> Text:
    found, gold = _label(seen, event.key, task) or "-", event.labels[task]
    if found == gold:
        return Text(found, style="green")
    if task == "sentiment" and gold == "mixed":
        return Text(f"{found} (mixed)", style="yellow")
    return Text(f"{found} (is {gold})", style="red")


def _aspects(result: Mapping[str, Any] | None) -> Text:
    lines = []
    for aspect, opinion in (path for path in (result or {}).get("extractions", ()) if len(path) == 2):
        style = {"正": "green", "负": "red"}.get(opinion["type"][0], "yellow")
        lines.append(Text.assemble(aspect["span"] or "(product)", " → ", (opinion["span"], style)))
    return Text("\n").join(lines) if lines else Text("-", style="dim")


def accuracy_lines(samples: Sequence[DemoEvent], seen: Seen) -> list[str]:
    """How often the labels were right, and which mistakes are the most common."""
    lines = []
    for task in ("sentiment", "category"):
        judged = [event for event in samples if event.labels[task] != "mixed"]
        wrong = Counter(
            (event.labels[task], _label(seen, event.key, task) or "nothing")
            for event in judged
            if _label(seen, event.key, task) != event.labels[task]
        )
        right = len(judged) - wrong.total()
        common = ", ".join(f"{gold} read as {found} ({n})" for (gold, found), n in wrong.most_common(3))
        share = f"{right} of {len(judged)} right ({right / len(judged):.0%})"
        lines.append(f"{task}: {share}; {common}" if wrong else f"{task}: {share}")
    with_opinion = sum(
        any(len(path) == 2 for path in seen.results[event.key, "product_features"]["extractions"])
        for event in samples
        if (event.key, "product_features") in seen.results
    )
    lines.append(
        f"product features: an aspect with an opinion in {with_opinion} of {len(samples)} reviews; these samples carry "
        "no gold spans, so nothing is claimed about their correctness"
    )
    return lines


def summary(
    samples: Sequence[DemoEvent],
    broken: Sequence[DemoEvent],
    texts: Mapping[str, str],
    seconds: float,
    seen: Seen,
    worker: WorkerNumbers,
    rows: int,
) -> RenderableType:
    """The closing page of the demo."""
    scores = [fact["score"] for result in seen.results.values() for path in result["extractions"] for fact in path]
    return Group(
        reviews_table(samples, texts, seen, rows),
        dead_letter_table(broken, seen),
        Panel(
            Text(
                "\n".join(accuracy_lines(samples, seen))
                + "\nThe demo model has 4.4 M parameters and was trained on shop reviews alone; the mean score of its "
                f"facts is {mean(scores) if scores else 0:.2f}. What it gets wrong is the model's fault, not the "
                "pipeline's: the published checkpoint takes its place with one `rexstream export`."
            ),
            title="accuracy",
            title_align="left",
            border_style="dim",
        ),
        numbers_table(len(samples), seconds, seen, worker),
    )
