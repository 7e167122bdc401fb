"""The options by which ``dead-letters list`` and ``replay`` choose letters."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, get_args

import click

from consumer.delivery.letters import Selection
from consumer.events import Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_Function = TypeVar("_Function", bound="Callable[..., Any]")
_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _time(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since 1970 of ``2h`` (ago) or of an ISO time, in UTC unless it says otherwise."""
    if value is None:
        return None
    try:
        if ago := _AGO.fullmatch(value):
            return round((time.time() - int(ago[1]) * _UNITS[ago[2]]) * 1000)
        moment = datetime.fromisoformat(value)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a time such as 2026-05-01T08:30 nor an age such as 30s, 5m, 2h or 7d"
        ) from None


def selection_options(function: _Function) -> _Function:
    """Add the filters; the command gets them as keyword arguments for ``selection``."""
    several = "; may be given many times."
    for option in (
        click.option("--until", metavar="TIME", callback=_time, help="Failed before then, as --since."),
        click.option(
            "--since",
            metavar="TIME",
            callback=_time,
            help="Failed then or later: 2026-05-01T08:30 (UTC), or an age in s, m, h or d, such as 2h.",
        ),
        click.option("--topic", "topics", multiple=True, help=f"Topic that the failed record came from{several}"),
        click.option("--task", "tasks", multiple=True, help=f"Task that failed{several}"),
        click.option(
            "--stage",
            "stages",
            multiple=True,
            type=click.Choice(get_args(Stage)),
            help=f"Stage that failed{several}",
        ),
        click.option("--class", "reasons", multiple=True, help=f"Class of the failure, such as InvalidJson{several}"),
        click.option("--id", "ids", multiple=True, help=f"Id of a dead letter{several}"),
    ):
        function = option(function)
    return function


def selection(
    ids: tuple[str, ...],
    reasons: tuple[str, ...],
    stages: tuple[str, ...],
    tasks: tuple[str, ...],
    topics: tuple[str, ...],
    since: int | None,
    until: int | None,
) -> Selection:
    """The letters that the options mean."""
    return Selection(
        frozenset(ids), frozenset(reasons), frozenset(stages), frozenset(tasks), frozenset(topics), since, until
    )
