"""Progress of a running command: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Task

LINE_SECONDS = 5.0
"""Seconds between progress lines where the output is no terminal, for commands that print them there."""


@contextmanager
def counter(
    what: str, total: int | None = None, *, console: Console | None = None, line_seconds: float = float("inf")
) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of ``what`` that are done so far (of ``total``, where that is known).

    Where ``console`` (standard error, unless another is given) is no terminal, a line is printed every ``line_seconds``
    seconds: never, unless a number is given.
    """
    console = console or Console(stderr=True)
    of = "" if total is None else f" of {total:,}"
    if not console.is_terminal:
        started = time.monotonic()
        due = started + line_seconds

        def line(done: int) -> None:
            nonlocal due
            if (now := time.monotonic()) >= due:
                console.print(
                    f"{done:,}{of} {what}, {now - started:.0f} s", markup=False, highlight=False, soft_wrap=True
                )
                due = now + line_seconds

        yield line
        return
    columns = (
        TextColumn(f"{{task.completed:,.0f}}{of} {what}", markup=False),
        *([BarColumn()] if total else []),
        TimeElapsedColumn(),
        *([TimeRemainingColumn(), TextColumn("left")] if total else []),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def countdown(seconds: float, *, console: Console | None = None) -> Iterator[Callable[[str], None]]:
    """A bar that fills up in ``seconds``, for work that ends after so long at the latest.

    Yields a function to call with what is under way. Nothing is shown where ``console`` (standard error, unless another
    is given) is no terminal.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (BarColumn(), _Left(seconds), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=seconds)

        def under_way(what: str) -> None:
            bar.update(task, description=what, completed=min(seconds, bar.tasks[0].elapsed or 0.0))

        yield under_way


class _Left(ProgressColumn):
    """Minutes and seconds that are left."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__()

    def render(self, task: Task) -> Text:
        minutes, seconds = divmod(round(max(0.0, self._seconds - (task.elapsed or 0.0))), 60)
        return Text(f"{minutes}:{seconds:02} left at most")


@contextmanager
def waiting_for(whom: str, *, console: Console | None = None) -> Iterator[None]:
    """Says for whom a command waits, and for how long; nothing where standard error is no terminal."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn(f"waiting for {whom} ...", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task("", total=None)
        yield
