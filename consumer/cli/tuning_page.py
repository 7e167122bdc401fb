"""A profile of ``rexstream tune`` as a page for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Column, Table
from rich.text import Text

from consumer.batching.tuning import CALL_SHARE, NEAR_BEST, NEAR_BEST_CALLS, median_length, most_rows
from consumer.cli.load_test import LEAST_REPEATS
from consumer.cli.tuning_profile import cost_settings, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

    from consumer.cli.tuning_profile import Profile

_BAR: Final = 32
"""Characters of the longest bar."""


def page(profile: Profile) -> Iterator[RenderableType]:
    """The parts of the page, one below the other."""
    name, version = profile.model
    lengths, settings = profile.lengths, profile.settings
    first, every = (sum(windows.values()) / lengths.reviews for windows in (lengths.first, lengths.every))
    yield Text(f"Model {name} version {version} at {settings.target}", style="bold")
    yield Text(
        f"{lengths.reviews} reviews of {settings.input}, {', '.join(settings.tasks)}: {first:.1f} windows a review on "
        f"the first level, {every:.1f} on all; padded to {min(lengths.every)} to {max(lengths.every)} tokens, half of "
        f"them to {median_length(lengths.every)} at most"
    )
    yield from _measured(profile)
    yield from _recommended(profile)
    yield from _not_measured(profile)
    for doubt in profile.doubts:
        yield Text(f"\nDo not trust these figures: {doubt}.", style="bold red")


def _measured(profile: Profile) -> Iterator[RenderableType]:
    cost = profile.cost
    yield _heading("Milliseconds a call, measured and predicted: rows down, tokens across")
    columns = sorted({cell.length for cell in profile.grid.cells})
    table = Table(
        Column("rows", justify="right"),
        *(Column(str(length), justify="right", no_wrap=True) for length in columns),
        box=None,
        pad_edge=False,
    )
    cells = {(cell.rows, cell.length): cell for cell in profile.grid.cells}
    left_out = {(each.rows, each.length) for each in profile.grid.left_out}
    for rows in sorted({rows for rows, _ in cells}):
        shown = []
        for length in columns:
            cell = cells.get((rows, length))
            measured = "·" if (rows, length) in left_out else ""
            if cell is not None:
                measured = f"{_ms(cell.seconds)} {_ms(cost.seconds(rows, length))}"
            shown.append(measured)
        table.add_row(str(rows), *shown)
    yield table
    floor = f"max({_ms(cost.floor)} ms, " if cost.floor else ""
    yield Text(
        f"\nB rows padded to L tokens take {floor}{_ms(cost.fixed)} ms + {cost.per_token * 1e6:.3g} µs·B·L + "
        f"{cost.per_pair * 1e9:.3g} ns·B·L²{')' if floor else ''}: off by {percent(cost.error, 1)} (median)"
    )
    if profile.spread is not None:
        yield Text(
            f"Equal calls differ by {percent(profile.spread, 1)} (the middle half of the repeats, median of all shapes)"
        )
    median = median_length(profile.lengths.every)
    yield _heading(f"Padded tokens a second, {median} tokens a window, one call after the other")
    yield _bars({cell.rows: cell.tokens / cell.seconds for cell in profile.grid.cells if cell.length == median}, "rows")
    yield _heading(f"Calls a second of {profile.at_once.rows} x {profile.at_once.length} tokens, by calls in flight")
    yield _bars(profile.rates, "calls")


def _recommended(profile: Profile) -> Iterator[RenderableType]:
    budget, settings = profile.budget, profile.settings
    yield _heading("Recommended")
    yield Text(
        f"batching:\n  max_tokens: {budget.max_tokens}\n  max_in_flight: {profile.in_flight}\n  cost:\n"
        + "".join(f"    {name}: {seconds:.3e}\n" for name, seconds in cost_settings(profile.cost).items()),
        style="green",
    )
    why = {
        "nothing": f"the smallest within {percent(1 - NEAR_BEST)} of the most tokens a second",
        "objective": f"larger calls do more a second, and take over a third of --objective {settings.objective:g} s",
        "tried": f"within {percent(1 - NEAR_BEST)} of the most tokens a second that were tried, and larger calls "
        "should do more: raise --max-tokens, or --longest, if the server has the memory",
    }[budget.limited_by]
    if budget.longest_call > CALL_SHARE * settings.objective:
        why = (
            f"the least that a worker accepts; its calls of {budget.longest_call:.2f} s are more than a third of "
            f"--objective {settings.objective:g} s, so this server is too slow for it"
        )
    yield Text(
        f"max_tokens: {why}. A full call takes up to {_ms(budget.longest_call)} ms, and one after the other do "
        f"{budget.tokens_per_second:,.0f} padded tokens a second."
    )
    rates = profile.rates
    gain = max(rates.values()) / rates[1]
    yield Text(
        f"max_in_flight: the fewest within {percent(1 - NEAR_BEST_CALLS)} of the most calls a second, which are "
        f"{gain:.2f} times those of one at a time. It is for one worker; several on one server share what it can do."
    )
    yield Text(
        "TensorFlow Serving: batching off (no --enable_batching). A worker batches by length, which the server cannot, "
        "and lengths that meet in its queue are an error. If another model there needs it, give this one a server of "
        f"its own: calls have up to {most_rows(budget.max_tokens)} rows, and a smaller max_batch_size refuses them. "
        f"Have calls of this size warmed up: rexstream export --max-tokens {budget.max_tokens}."
    )
    yield _heading("What one server does with that")
    first, every = profile.reviews_per_second
    lengths = profile.lengths
    for level, rate, windows in (("first level alone", first, lengths.first), ("all levels", every, lengths.every)):
        count = sum(windows.values()) / lengths.reviews
        day = f"{rate * 86_400 / 1e6:,.1f} million a day"
        yield Text(f"{level + ',':<18} {count:.1f} windows a review: {rate:,.1f} reviews a second, {day}")
    yield Text("With full calls of one length each, and nobody else at the server: plan for less, and for your peak.")


def _not_measured(profile: Profile) -> Iterator[RenderableType]:
    notes = []
    for why in dict.fromkeys(each.why.partition(" to take")[0] for each in profile.grid.left_out):
        found = [each for each in profile.grid.left_out if each.why.startswith(why)]
        shown = ", ".join(f"{each.rows} x {each.length}" for each in found)
        if why == "expected":
            why = f"expected to take more than --longest {profile.settings.longest:g} s"
        notes.append(f"{shown}: {why}")
    few = sum(len(cell.repeats) < LEAST_REPEATS for cell in profile.grid.cells)
    if few:
        notes.append(f"{few} shapes were called less than {LEAST_REPEATS} times (--minutes)")
    if profile.at_once.refused:
        notes.append(profile.at_once.refused)
    if profile.settings.passed_over:
        notes.append(f"{profile.settings.passed_over} lines of the input, which hold no review")
    if profile.lengths.refused:
        notes.append(f"{profile.lengths.refused} reviews have tasks that were refused (see rexstream extract)")
    notes.append("other clients beside this one, several servers behind one address, and the memory of the server")
    yield _heading("Not measured")
    for note in notes:
        yield Text(f"- {note}")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _bars(values: Mapping[int, float], what: str) -> Table:
    most = max(values.values(), default=1.0)
    table = Table(Column(what, justify="right"), Column("", justify="right"), "", box=None, pad_edge=False)
    for name, value in sorted(values.items()):
        table.add_row(str(name), f"{value:,.1f}" if value < 100 else f"{value:,.0f}", "█" * round(_BAR * value / most))
    return table


def _ms(seconds: float) -> str:
    """Three digits of milliseconds."""
    milliseconds = seconds * 1000
    return (
        f"{milliseconds:.2f}"
        if milliseconds < 10
        else f"{milliseconds:.1f}"
        if milliseconds < 100
        else f"{milliseconds:.0f}"
    )
