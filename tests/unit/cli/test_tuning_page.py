"""A profile of ``tune``: what follows from its measurements, its fields and its page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from consumer.batching.call_cost import Cell
from consumer.cli.load_test import AtOnce, Grid, LeftOut
from consumer.cli.tuning_page import page
from consumer.cli.tuning_profile import Lengths, Profile, Settings, fitted
from consumer.config.tree import BatchingConfig

DOC = Path(__file__).parents[3] / "docs/tuning.md"
LENGTHS = Lengths(reviews=10, refused=0, first={32: 10}, every={32: 10, 64: 20})
SETTINGS = Settings("localhost:8500", "reviews.csv", ("sentiment",), 3.0, 2.0, 2.0, 16_384)


def call(rows: int, length: int) -> float:
    return 0.01 + 1e-5 * rows * length


def profile(*, noise: float = 0.01, repeats: int = 5, seconds: Any = call, objective: float = 2.0) -> Profile:
    """A server of 10 ms a call and 10 µs a token, that two calls at once keep busy."""
    off = [(place - (repeats - 1) / 2) * noise for place in range(repeats)]
    cells = [
        Cell(rows, length, tuple(seconds(rows, length) * (1 + each) for each in off))
        for length in (32, 64, 128)
        for rows in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    settings = replace(SETTINGS, objective=objective)
    grid = Grid(tuple(cells), ())
    at_once = AtOnce(81, 64, {1: [10.0, 9.0, 10.0], 2: [14.0, 15.0, 15.0], 3: [15.2, 15.2, 9.0]}, "")
    return Profile(
        "2026-11-29T20:00:00+00:00", ("m", "7"), settings, LENGTHS, grid, *fitted(grid, LENGTHS, settings), at_once
    )


def shown(found: Profile, width: int = 100) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width, highlight=False)
    for part in page(found):
        console.print(part)
    return output.getvalue()


def test_what_is_recommended_follows_from_the_measurements() -> None:
    """95 % of the 94,247 tokens a second of the largest call; two calls at once are within 3 % of three."""
    found = profile()
    assert (found.budget.max_tokens, found.in_flight) == (8704, 2)
    assert found.rates == {1: 10.0, 2: 15.0, 3: 15.2}
    assert found.doubts == []


def test_reviews_a_second_are_those_of_all_windows() -> None:
    """A full call of 8,704 tokens takes 97 ms: 272 windows of 32 tokens, or 136 of 64; two at once do half more."""
    first, every = profile().reviews_per_second
    assert first == pytest.approx(1.5 / (0.09704 / 272), rel=0.01)
    assert every == pytest.approx(1.5 / (0.09704 / 272 + 2 * 0.09704 / 136), rel=0.01)


def test_repeats_that_are_far_apart_are_not_trusted() -> None:
    """With how far, and what to do; figures are shown all the same."""
    found = profile(noise=0.4)
    (doubt,) = found.doubts
    assert "equal calls differ by 80 % " in doubt
    assert "others keep the server, its machine or this one busy" in doubt
    page_of_it = shown(found)
    assert "Do not trust these figures: equal calls differ by 80 %" in page_of_it
    assert "max_tokens: 8704" in page_of_it


def test_too_few_repeats_are_not_trusted() -> None:
    """Nothing says whether they would have been equal."""
    found = profile(repeats=2)
    assert found.spread is None
    assert "no shape was called 3 times in 3 minutes" in found.doubts[0]
    assert "24 shapes were called less than 3 times" in shown(found)


def test_times_that_do_not_follow_from_the_shape_are_not_trusted() -> None:
    """As behind a proxy to a fast and a slow server."""
    found = profile(seconds=lambda rows, length: call(rows, length) * (8 if rows in (1, 4, 16, 64) else 1))
    assert any("the fit is off by" in doubt for doubt in found.doubts)


def test_the_yaml_can_be_copied() -> None:
    """From a narrow terminal, too."""
    text = shown(profile(), 40)
    start = text.index("batching:\n")
    copied = yaml.safe_load(text[start : text.index("\n\n", start)])["batching"]
    cost = BatchingConfig.model_validate(copied).cost
    assert (copied["max_tokens"], copied["max_in_flight"]) == (8704, 2)
    assert cost.fixed_seconds == pytest.approx(0.01, rel=0.01)
    assert cost.linear_seconds == pytest.approx(1e-5, rel=0.1)


def test_the_grid_shows_measured_and_predicted_times() -> None:
    """In milliseconds, rows down and lengths across; a point stands for a shape that was left out."""
    found = profile()
    cells = tuple(cell for cell in found.grid.cells if (cell.rows, cell.length) != (128, 128))
    text = shown(replace(found, grid=Grid(cells, (LeftOut(128, 128, "expected to take 9.0 s"),))))
    assert re.search(r"\nrows +32 +64 +128 *\n", text)
    assert re.search(r"\n +1 +10\.3 10\.3 +10\.6 10\.6 +11\.3 11\.3 *\n", text)
    assert re.search(r"\n 128 .* · *\n", text)
    assert "- 128 x 128: expected to take more than --longest 2 s" in text
    assert "10.0 ms + 10 µs·B·L + 0 ns·B·L²: off by 0.0 %" in text


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (2.0, "the smallest within 5 % of the most tokens a second"),
        (0.15, "larger calls do more a second, and take over a third of --objective 0.15 s"),
        (0.03, "the least that a worker accepts"),
    ],
)
def test_why_a_budget_is_what_it_is_is_said(objective: float, said: str) -> None:
    """Which of its bounds holds, so that the reader knows what would change it."""
    assert said in re.sub(r"\s+", " ", shown(profile(objective=objective)))


def test_a_budget_that_may_grow_says_with_what() -> None:
    """The largest call that was tried is far from what the formula promises."""
    text = re.sub(r"\s+", " ", shown(profile(seconds=lambda rows, length: 1.0 + 1e-6 * rows * length, objective=9.0)))
    assert "raise --max-tokens, or --longest, if the server has the memory" in text


def test_server_batching_is_off_with_the_reason() -> None:
    """And how many rows a call has, for whoever cannot turn it off."""
    text = re.sub(r"\s+", " ", shown(profile()))
    assert "batching off (no --enable_batching). A worker batches by length" in text
    assert "calls have up to 1088 rows" in text


def test_what_was_not_measured_is_said() -> None:
    """Refused numbers of calls, reviews and shapes, each with the reason once."""
    found = profile()
    left_out = (LeftOut(64, 512, "the time was up"), LeftOut(32, 512, "the time was up"))
    found = replace(
        found,
        grid=Grid(found.grid.cells, left_out),
        at_once=replace(found.at_once, refused="8 at once were refused (RESOURCE_EXHAUSTED)"),
        lengths=replace(LENGTHS, refused=3),
        settings=replace(SETTINGS, passed_over=4),
    )
    text = re.sub(r"\s+", " ", shown(found))
    notes = "64 x 512, 32 x 512: the time was up - 8 at once were refused (RESOURCE_EXHAUSTED) - 4 lines of the input"
    assert f"Not measured - {notes}, which hold no review - 3 reviews have tasks that were refused" in text


def names(value: Any) -> set[str]:
    """Names of all fields of a JSON value, but of tables by length or number."""
    if isinstance(value, list):
        return set().union(*map(names, value))
    if isinstance(value, dict):
        return {name for name in value if not name.isdigit()}.union(*map(names, value.values()))
    return set()


def test_every_field_of_the_profile_is_documented() -> None:
    """In a row of the table in docs/tuning.md, and it names no others."""
    found = replace(profile(), grid=Grid(profile().grid.cells, (LeftOut(1, 2, "why"),)))
    content = json.loads(json.dumps(found.as_json(), allow_nan=False))
    rows = re.findall(r"^\| (`[^|]*) \|", DOC.read_text("utf-8").partition("## The profile")[2], re.MULTILINE)
    documented = {part for row in rows for name in re.findall(r"`([\w.]+)`", row) for part in name.split(".")}
    assert documented == names(content)
