"""What ``rexstream tune`` found, as a profile: what was measured, the fit, and what follows. docs/tuning.md has its
fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from consumer import __version__
from consumer.batching.call_cost import fit_call_cost
from consumer.batching.tuning import (
    Budget,
    fewest_in_flight,
    median_length,
    most_rows,
    reviews_per_second,
    token_budget,
)
from consumer.cli.load_test import LEAST_REPEATS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.batching.policy import CallCost
    from consumer.cli.load_test import AtOnce, Grid, Sample

FORMAT: Final = 1
UNTRUSTED: Final = 0.25
"""Share by which the repeats of a call, or measured and predicted times, may differ. An idle server's differ by a few
hundredths; a budget is chosen by a twentieth."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    target: str
    input: str
    tasks: tuple[str, ...]
    minutes: float
    longest: float
    """Seconds, as ``objective``."""
    objective: float
    max_tokens: int
    """Of the largest call that was tried."""
    passed_over: int = 0
    """Lines before the last review that was read, in which there was none."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Windows of the reviews that were asked, by padded length."""

    reviews: int
    refused: int
    first: Mapping[int, int]
    every: Mapping[int, int]

    @classmethod
    def of(cls, sample: Sample) -> Lengths:
        """Without the windows themselves, which are made of reviews."""
        return cls(sample.reviews, sample.refused, dict(sample.first), dict(sample.every))

    def a_review(self, windows: Mapping[int, int]) -> dict[int, float]:
        """Windows of each padded length that a review has on average."""
        return {length: windows[length] / self.reviews for length in sorted(windows)}


@dataclass(frozen=True, slots=True)
class Profile:
    """One run of the command. Properties are what follows from its measurements."""

    date: str
    """When it began, in UTC, as ISO 8601 has it."""
    model: tuple[str, str]
    """Name and version."""
    settings: Settings
    lengths: Lengths
    grid: Grid
    cost: CallCost
    budget: Budget
    at_once: AtOnce

    @property
    def rates(self) -> dict[int, float]:
        """Calls a second by calls in flight: medians of the passes."""
        return {number: float(np.median(rates)) for number, rates in self.at_once.passes.items()}

    @property
    def in_flight(self) -> int:
        """For ``batching.max_in_flight``."""
        return fewest_in_flight(self.rates)

    @property
    def spread(self) -> float | None:
        """How far apart equal calls were, the median of all cells; None where none was repeated often enough."""
        spreads = [cell.spread for cell in self.grid.cells if len(cell.repeats) >= LEAST_REPEATS]
        return float(np.median(spreads)) if spreads else None

    @property
    def doubts(self) -> list[str]:
        """Why the figures are not to be trusted; empty where they are."""
        found = []
        if self.spread is None:
            found.append(
                f"no shape was called {LEAST_REPEATS} times in {self.settings.minutes:g} minutes, so it is not known "
                "how much equal calls differ: give it more time with --minutes"
            )
        elif self.spread > UNTRUSTED:
            found.append(
                f"equal calls differ by {percent(self.spread)} (the middle half of repeats; over {percent(UNTRUSTED)} "
                "is too much): others keep the server, its machine or this one busy. Measure when they do not"
            )
        if self.cost.error > UNTRUSTED:
            found.append(
                f"the fit is off by {percent(self.cost.error)} at half of the shapes (over {percent(UNTRUSTED)} is too "
                "much): the time of a call does not follow from its shape, as behind a proxy to unequal servers"
            )
        return found

    @property
    def reviews_per_second(self) -> tuple[float, float]:
        """Of one server with the recommended settings: the first level alone, and all levels."""
        rates = self.rates
        first, every = (
            reviews_per_second(
                self.cost,
                self.lengths.a_review(windows),
                self.budget.max_tokens,
                max(1.0, rates[self.in_flight] / rates[1]),
            )
            for windows in (self.lengths.first, self.lengths.every)
        )
        return first, every

    def as_json(self) -> dict[str, Any]:
        """The profile's fields."""
        settings, lengths, cost, budget = self.settings, self.lengths, self.cost, self.budget
        first, every = self.reviews_per_second
        return {
            "format": FORMAT,
            "date": self.date,
            "rexstream": __version__,
            "model": {"name": self.model[0], "version": self.model[1], "target": settings.target},
            "settings": {
                "input": settings.input,
                "tasks": list(settings.tasks),
                "minutes": settings.minutes,
                "longest_seconds": settings.longest,
                "objective_seconds": settings.objective,
                "max_tokens_tried": settings.max_tokens,
            },
            "input": {
                "reviews": lengths.reviews,
                "reviews_refused": lengths.refused,
                "lines_passed_over": settings.passed_over,
                "median_length": median_length(lengths.every),
                "windows_per_review": {
                    "first_level": _rounded(lengths.a_review(lengths.first)),
                    "all_levels": _rounded(lengths.a_review(lengths.every)),
                },
            },
            "cost": {**cost_settings(cost), "median_relative_error": round(cost.error, 4)},
            "grid": [
                {
                    "rows": cell.rows,
                    "length": cell.length,
                    "seconds": round(cell.seconds, 6),
                    "predicted_seconds": round(cost.seconds(cell.rows, cell.length), 6),
                    "repeats": [round(seconds, 6) for seconds in cell.repeats],
                }
                for cell in self.grid.cells
            ],
            "left_out": [each._asdict() for each in self.grid.left_out],
            "in_flight": {
                "rows": self.at_once.rows,
                "length": self.at_once.length,
                "calls_per_second": {
                    str(number): [round(rate, 3) for rate in rates] for number, rates in self.at_once.passes.items()
                },
                "refused": self.at_once.refused or None,
            },
            "spread": None if self.spread is None else round(self.spread, 4),
            "doubts": self.doubts,
            "recommended": {
                "batching": {"max_tokens": budget.max_tokens, "max_in_flight": self.in_flight},
                "limited_by": budget.limited_by,
                "longest_call_seconds": round(budget.longest_call, 6),
                "padded_tokens_per_second": round(budget.tokens_per_second, 1),
                "server_batching": "off",
                "most_rows_per_call": most_rows(budget.max_tokens),
            },
            "reviews_per_second": {"first_level": round(first, 2), "all_levels": round(every, 2)},
        }


def cost_settings(cost: CallCost) -> dict[str, float]:
    """For ``batching.cost``."""
    return {
        "floor_seconds": cost.floor,
        "fixed_seconds": cost.fixed,
        "linear_seconds": cost.per_token,
        "square_seconds": cost.per_pair,
    }


def percent(share: float, digits: int = 0) -> str:
    """``0.05`` as ``5 %``."""
    return f"{share * 100:.{digits}f} %"


def _rounded(windows: Mapping[int, float]) -> dict[str, float]:
    return {str(length): round(count, 4) for length, count in windows.items()}


def fitted(grid: Grid, lengths: Lengths, settings: Settings) -> tuple[CallCost, Budget]:
    """The cost of calls that the grid shows, and the budget that follows from it.

    Budgets up to the largest call that was measured are looked at: what larger ones take was not seen.
    """
    cost = fit_call_cost(grid.cells)
    tried = max(cell.tokens for cell in grid.cells)
    return cost, token_budget(cost, lengths.every, settings.objective, tried)
