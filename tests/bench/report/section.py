"""What a benchmark hands to the report (tests/bench/README.md), checked where it is written and where it is read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

CLOSED: Final = ConfigDict(extra="forbid")

Cell = str | int | float | None


@dataclass(frozen=True)
class Goal:
    """What was to be reached, and what was found; ``met`` is None where this run cannot tell."""

    __pydantic_config__ = CLOSED

    goal: str
    found: str
    met: bool | None


@dataclass(frozen=True)
class Series:
    """One line, cloud of points or set of bars. All lists are as long as its ``x``, or else the plot's."""

    __pydantic_config__ = CLOSED

    name: str
    y: list[float | None]
    low: list[float | None] | None = None
    high: list[float | None] | None = None
    x: list[float] | None = None


@dataclass(frozen=True)
class Plot:
    """``x`` may be strings for bars."""

    __pydantic_config__ = CLOSED

    kind: Literal["lines", "points", "bars"]
    title: str
    xlabel: str
    ylabel: str
    series: list[Series]
    x: list[float] | list[str] = field(default_factory=list)
    log: bool | Literal["x", "y"] = False


@dataclass(frozen=True)
class Table:
    """A further table of a section."""

    __pydantic_config__ = CLOSED

    title: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Section:
    """One benchmark in the report."""

    __pydantic_config__ = CLOSED

    title: str
    claim: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    not_measured: str = ""
    """Why there are no figures; empty where there are."""

    def write(self, path: Path) -> None:
        """As ``read`` takes it. Raises ValueError as that does."""
        content = json.dumps(asdict(self), ensure_ascii=False)
        parsed(content)
        path.write_text(content, "utf-8")


def parsed(content: str) -> Section:
    """Raises ValueError, with the place and the reason, for what does not keep the contract."""
    try:
        section = TypeAdapter(Section).validate_json(content)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not section.not_measured and not section.claim:
        raise ValueError("claim: a section with figures says what they show")
    for table in (Table(section.title, section.columns, section.rows), *section.tables):
        if any(len(row) != len(table.columns) for row in table.rows):
            raise ValueError(f"rows: {table.title!r} has {len(table.columns)} columns, and not all rows have as many")
    for plot in section.plots:
        for series in plot.series:
            size = len(plot.x if series.x is None else series.x)
            if any(each is not None and len(each) != size for each in (series.y, series.low, series.high)):
                raise ValueError(f"plots: {series.name!r} of {plot.title!r} does not have {size} values")
    return section
