"""``rexstream demo``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

import consumer
from consumer.cli.progress import LINE_SECONDS, counter
from consumer.exit_codes import EXIT_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ELSEWHERE = 100
"""Columns of the tables in a file or a pipe."""


@click.command(name="demo", short_help="Watch the whole pipeline run on this machine.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=14, show_default=True, help="Reviews to show in the closing table."
)
@click.option("--reviews", type=click.IntRange(min=1), help="Send only so many of the sample reviews, the first ones.")
def command(rows: int, reviews: int | None) -> None:
    """Run every part on this machine and show what comes out.

    Starts an in-memory Kafka broker, a model server with the demo model and one worker, sends a few hundred reviews
    and a handful of broken events, waits for every outcome, and audits that none is missing.

    \b
    Example:
      rexstream demo
      rexstream demo --reviews 100
    """  # noqa: D301 - click wants the backspace character itself
    from consumer.local.demo import Demo
    from consumer.local.demo_events import broken_events, sample_events
    from consumer.local.demo_outcome import TASKS, missing
    from consumer.local.demo_summary import summary
    from consumer.local.processes import ChildError

    console = _console()
    samples, broken = sample_events()[:reviews], broken_events()
    texts = {event.key: json.loads(event.value or b"{}").get("text", "") for event in samples}
    expected = len(samples) * len(TASKS) + sum(event.value is not None for event in broken)
    try:
        with _folder() as folder, Demo(Path(folder)) as demo:
            with _step(console, "demo model as a SavedModel") as done:
                models, exported = demo.export_model()
                parameters = demo.parameters(models)
                done("exported and checked against its reference" if exported else "as exported before")
            with _step(console, "broker and model server") as done:
                broker, model_server = demo.start_servers(models)
                done(f"Kafka protocol on {broker} (in memory), TensorFlow Serving's API on {model_server}")
            with _step(console, "worker") as done:
                http = demo.start_worker(broker, model_server, models)
                done(f"ready; watch it on http://{http}/")
            started = time.monotonic()
            with _step(console, "producer") as done:
                demo.send(broker, [*broken[:6], *samples, *broken[6:]])
                done(f"{len(samples)} reviews and {len(broken)} broken events sent to reviews.raw")
            with counter("outcomes", expected, console=console, line_seconds=LINE_SECONDS) as advance:
                seen = demo.collect(broker, expected, advance)
            seconds = time.monotonic() - started
            numbers = demo.worker_numbers(http)
            with _step(console, "worker") as done:
                demo.stop_worker()
                done("drained, committed, left the group")
    except ChildError as error:
        raise click.ClickException(f"the demo failed: {error}") from None
    console.print()
    console.print(summary(samples, broken, texts, seconds, seen, numbers, rows, console.width, parameters))
    lost = missing(samples, broken, seen, numbers.dropped)
    for line in lost[:20]:
        console.print(f"[red]audit: {line}")
    if lost or seen.doubled:
        console.print(
            f"[red]audit: {len(lost)} outcomes are not what they should be, {seen.doubled} results came twice"
        )
        sys.exit(EXIT_FAILED)
    console.print(
        f"[green]✓[/] audit: {len(seen.results)} results, {len(seen.dead_letters)} dead letters, {numbers.dropped} "
        "dropped; every event has exactly its outcomes"
    )


def _console() -> Console:
    """As wide as the terminal, or as COLUMNS says; 100 columns where output goes elsewhere."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=ELSEWHERE)


def _folder() -> contextlib.AbstractContextManager[str | Path]:
    """The checkout's own cache folder, or a temporary one for an installed package."""
    checkout = Path(consumer.__file__).resolve().parent.parent
    if not (checkout / "pyproject.toml").exists():
        return tempfile.TemporaryDirectory(prefix="rexstream-demo-")
    folder = checkout / ".cache" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext(folder)


@contextlib.contextmanager
def _step(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """One line a step: a spinner on a terminal while it runs, then what was done and how long it took."""
    started = time.monotonic()
    done: list[str] = []
    with console.status(f"{title} ...") if console.is_terminal else contextlib.nullcontext():
        yield done.append
    console.print(f"[green]✓[/] [bold]{title}[/]: {' '.join(done)} [dim]({time.monotonic() - started:.1f} s)[/]")
