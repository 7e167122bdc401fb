"""A plot of a section as a PNG."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report.section import Plot, Series

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
"""Okabe and Ito's, which colour-blind readers tell apart."""
MARKERS = "osD^vPX*"
BARS_WIDTH = 0.8
MOST_UPRIGHT = 6
"""Groups of bars; more lie, with their names beside them."""
SHORT = 20
"""A logarithmic axis from a value to less than so many times it has numbers between powers of ten."""
WRAP = 16
"""Characters of a line under a bar."""


def draw(plot: Plot, path: Path) -> None:
    """Write the PNG."""
    from matplotlib.figure import Figure  # not at the top: it takes a second, which only a report needs

    lies = plot.kind == "bars" and len(plot.x) > MOST_UPRIGHT
    figure = Figure(figsize=(8, max(5.0, 0.35 * len(plot.x)) if lies else 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, series in enumerate(plot.series):
        style = {"color": COLOURS[number % len(COLOURS)], "label": series.name}
        if plot.kind == "bars":
            _bars(axes, plot, number, style, lies=lies)
        else:
            style |= {"marker": MARKERS[number % len(MARKERS)], "linestyle": ("-", "--")[number % 2]}
            _line(axes, plot, series, style)
    if plot.log in (True, "x"):
        _logarithmic(axes.xaxis, axes.set_xscale)
    if plot.log in (True, "y"):
        _logarithmic(*((axes.xaxis, axes.set_xscale) if lies else (axes.yaxis, axes.set_yscale)))
    elif not lies:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_title(textwrap.fill(plot.title, 80), fontsize=11)
    axes.set_xlabel(plot.ylabel if lies else plot.xlabel)
    axes.set_ylabel(plot.xlabel if lies else plot.ylabel)
    axes.grid(visible=True, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if any(series.name for series in plot.series):
        # Below the axes, where it hides nothing.
        figure.legend(loc="outside lower center", ncols=min(len(plot.series), 4), frameon=False, fontsize=9)
    figure.savefig(path)


def _logarithmic(axis: Any, set_scale: Callable[[str], None]) -> None:
    """With numbers as they are spoken; between powers of ten only where there are few of these."""
    set_scale("log")
    low, high = axis.get_view_interval()
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter((lambda value, _: f"{value:,g}") if high < SHORT * low else lambda *_: "")


def _line(axes: Any, plot: Plot, series: Series, style: dict[str, Any]) -> None:
    """Where nothing was measured the line has a gap; every second line is dashed, and seen where it covers another."""
    xs = list(plot.x if series.x is None else series.x)
    ys = [float("nan") if y is None else y for y in series.y]
    style["linestyle"] = "none" if plot.kind == "points" else style["linestyle"]
    axes.plot(xs, ys, markersize=4 if len(xs) <= 40 else 0, **style)
    if series.low is not None and series.high is not None:
        low, high = ([float("nan") if y is None else y for y in each] for each in (series.low, series.high))
        axes.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _bars(axes: Any, plot: Plot, number: int, style: dict[str, Any], *, lies: bool) -> None:
    """A group for each x, with a bar of each series."""
    series, width = plot.series[number], BARS_WIDTH / len(plot.series)
    places = [place + (number - (len(plot.series) - 1) / 2) * width for place in range(len(plot.x))]
    ys = [0.0 if y is None else y for y in series.y]
    errors = None
    if series.low is not None and series.high is not None:
        errors = [
            [max(0.0, y - (y if low is None else low)) for y, low in zip(ys, series.low, strict=True)],
            [max(0.0, (y if high is None else high) - y) for y, high in zip(ys, series.high, strict=True)],
        ]
    style |= {"capsize": 3, "error_kw": {"elinewidth": 1}}
    if lies:
        axes.barh(places, ys, width, xerr=errors, **style)
        axes.set_yticks(range(len(plot.x)), [str(x) for x in plot.x])
        axes.set_ylim(len(plot.x) - 0.5, -0.5)  # the first above
    else:
        axes.bar(places, ys, width, yerr=errors, **style)
        axes.set_xticks(range(len(plot.x)), [textwrap.fill(str(x), WRAP) for x in plot.x])
