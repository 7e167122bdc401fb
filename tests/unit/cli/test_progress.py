"""The counter that commands show while they work."""

from __future__ import annotations

import io
import re

from rich.console import Console

from consumer.cli.progress import countdown, counter


def shown(*, terminal: bool, total: int | None = 1200, line_seconds: float = float("inf")) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=60)
    with counter("[records]", total, console=console, line_seconds=line_seconds) as progress:
        for done in (600, 1100):
            progress(done)
    return output.getvalue()


def test_where_nobody_watches_nothing_is_shown() -> None:
    """Standard error of a pipeline stays clean, unless lines are asked for."""
    assert shown(terminal=False) == ""


def test_elsewhere_than_on_a_terminal_lines_come_as_often_as_asked() -> None:
    """Brackets in a topic's name are no markup."""
    assert shown(terminal=False, line_seconds=0.0) == "600 of 1,200 [records], 0 s\n1,100 of 1,200 [records], 0 s\n"
    assert shown(terminal=False, total=None, line_seconds=0.0).startswith("600 [records], 0 s\n")
    assert shown(terminal=False, line_seconds=60.0) == ""


def test_on_a_terminal_the_last_count_is_shown() -> None:
    """Next to a bar where the total is known."""
    known, unknown = shown(terminal=True), shown(terminal=True, total=None)
    assert ("1,100 of 1,200 [records]" in known, "━" in known) == (True, True)
    assert ("1,100 [records]" in unknown, "━" in unknown) == (True, False)


def counted_down(*, terminal: bool) -> str:
    output = io.StringIO()
    with countdown(150.0, console=Console(file=output, force_terminal=terminal, width=80)) as under_way:
        under_way("8 x [64] tokens")
    return output.getvalue()


def test_a_countdown_shows_what_is_under_way_and_the_time_that_is_left() -> None:
    """At most: the work may be done before. Where nobody watches it shows nothing."""
    shown_there = counted_down(terminal=True)
    assert re.search(r"2:(30|29) left at most", shown_there)
    assert "8 x [64] tokens" in shown_there
    assert counted_down(terminal=False) == ""
