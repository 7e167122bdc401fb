"""What grows, and how: workers, lag, partitions, types of a schema, characters of a text.

    python tests/bench/growth.py [--quick] [--json FILE] [--only workers]

What should be a straight line is fitted by one; reported are R² and the worst distance of a point from it. Workers run
against simulated model servers on an Apache Kafka of this machine; the engine runs alone. ``--quick``: up to four
workers, and the engine.
"""

from __future__ import annotations

import itertools
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import click
from apache_kafka import KafkaUnavailable, fetch_jars
from bench.growing import engine_cost
from bench.growing.draft import Draft
from bench.growing.group import grow
from bench.growing.line import Fit, fitted, proportional, straight_line
from bench.growing.load import behind, spread
from bench.growing.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.growing.engine_cost import Cost

    from consumer.extraction.engine import Engine

CLAIM: Final = (
    "Twice the workers do twice as much; twice the text, or twice the types of a schema, cost twice as much; neither a "
    "lag nor partitions make a worker larger or dearer. Where a curve bends, a note says why."
)
NEAR: Final = 0.1
"""Distance from a line that is still one: what equal runs differ by."""
FLAT: Final = 1.3
"""Largest over smallest of what should not grow."""


def straight(draft: Draft, what: str, asked: str, fit: Fit) -> None:
    """A row and a goal."""
    draft.row(what, asked, round(fit.r_squared, 4), f"{fit.worst:.1%}")
    found = f"R² {fit.r_squared:.4f}, worst point {fit.worst:.1%} off"
    draft.goal(f"{what}: a straight line within {NEAR:.0%}", found, met=fit.worst <= NEAR)


def flat(draft: Draft, what: str, values: Sequence[float]) -> None:
    """A goal."""
    low, high = min(values), max(values)
    found = f"{high / low:.2f} ({low:.3g} to {high:.3g})"
    draft.goal(f"{what}: largest / smallest <= {FLAT}", found, met=high / low <= FLAT)


def workers(draft: Draft, stage: Stage, *, quick: bool) -> None:
    """One group, a simulated server for each worker."""
    steps = grow(stage, (1, 2, 4) if quick else (1, 2, 4, 8), 4.0 if quick else 20.0)
    sizes, rates = [step.workers for step in steps], [step.events_per_second for step in steps]
    fit = proportional(sizes, rates)
    straight(draft, "events/s by workers, through zero", f"{sizes[0]} to {sizes[-1]}", fit)
    cores = max(step.cores for step in steps)
    draft.goal("all workers together need < 1.5 cores", f"{cores:.2f}", met=cores < 1.5)
    draft.table(
        "Workers of one group, each with a simulated model server",
        ["workers", "events/s", "events/s a worker, times that of one", "cores of all workers"],
        [[*step[:2], step.events_per_second / step.workers / rates[0], step.cores] for step in steps],
    )
    lines = {"measured": rates, "proportional": [fit.coefficients[0] * size for size in sizes]}
    draft.lines("Throughput by workers", ("workers", "events/s"), sizes, lines)


def lag(draft: Draft, stage: Stage) -> None:
    """Memory."""
    found = behind(stage, [10**power for power in range(3, 7)], 20.0)
    lags, memory = [one.lag for one in found], [one.resident_mib for one in found]
    flat(draft, "largest resident set, lag of 10,000 to 1,000,000", memory[1:])
    draft.note(
        "A lag of 1,000 is less than a worker takes in flight (limits.in_flight_events is 2,000), so it holds less; "
        "above that its limits and what its consumer fetches ahead decide, not the lag."
    )
    draft.table("A worker that is behind", ["records behind", "largest resident set, MiB"], found)
    draft.lines("Memory by lag", ("records behind", "MiB"), lags, {"largest resident set": memory}, "x")


def partitions(draft: Draft, stage: Stage) -> None:
    """Throughput, memory, joining, and what they cost when nothing comes."""
    found = spread(stage, (6, 50, 100, 200, 500))
    cpu, memory = [one.cpu_ms_per_event for one in found], [one.resident_mib for one in found]
    flat(draft, "CPU an event, 6 to 500 partitions", cpu)
    flat(draft, "largest resident set, 6 to 500 partitions", memory)
    draft.note("Events a second over new partitions are the broker's part, too; a worker's is its CPU an event.")
    columns = ["partitions", "seconds to join", "events/s", "CPU ms an event", "cores when idle", "MiB"]
    draft.table("A worker by its partitions", columns, found)
    ratios = {name: [one / of[0] for one in of] for name, of in (("CPU an event", cpu), ("resident set", memory))}
    numbers = [one.partitions for one in found]
    draft.lines("A worker by its partitions", ("partitions", "times that of 6"), numbers, ratios)


def schema(draft: Draft, engine: Engine, rounds: int) -> None:
    """CPU by types."""
    types, text = engine_cost.TYPES, engine_cost.review_text(engine_cost.TEXT)
    kinds = {"schema of the event": engine_cost.with_the_event, "configured schema": engine_cost.configured}
    costs = {
        name: engine_cost.measured(engine, [(text, kind(number)) for number in types], rounds)
        for name, kind in kinds.items()
    }
    own, prepared = costs.values()
    asked = f"{types[0]} to {types[-1]}"
    both = fitted(_ms(own), [1.0] * len(own), types, [cost.windows for cost in own])
    straight(draft, "engine CPU by types and windows, schema of the event", asked, both)
    windows = [cost.windows for cost in prepared]
    asked = f"{windows[0]} to {windows[-1]}"
    straight(draft, "engine CPU by windows, configured schema", asked, straight_line(windows, _ms(prepared)))
    draft.note(
        "An event that brings its schema pays for the names of its types, which are tokenised for it, and for windows. "
        "A configured schema is packed into hints once, so its events pay for windows only: one up to some 50 types of "
        "these names, one more for each 40 or so after that (a hint has 256 tokens)."
    )
    _costs(draft, f"Engine CPU by types, text of {len(text)} characters", "types", types, costs)


def text(draft: Draft, engine: Engine, rounds: int) -> None:
    """CPU by characters."""
    characters = engine_cost.CHARACTERS
    texts = [engine_cost.review_text(number) for number in characters]
    tasks = {"one level": engine_cost.ONE_LEVEL, "two levels": engine_cost.TWO_LEVELS}
    costs = {
        name: engine_cost.measured(engine, [(each, task) for each in texts], rounds) for name, task in tasks.items()
    }
    one, two = costs.values()
    asked = f"{characters[0]} to {characters[-1]:,}"
    # A text pays once for its first letters or digits, about which the tokenizer library is asked, and for being cut.
    has_letters = [float(engine_cost.has_letters(each)) for each in texts]
    is_cut = [float(cost.windows > 1) for cost in one]
    line = fitted(_ms(one), [1.0] * len(one), characters, has_letters, is_cut)
    straight(draft, "engine CPU by characters, one level", asked, line)
    both = fitted(_ms(two), [1.0] * len(two), characters, has_letters, [cost.windows for cost in two])
    straight(draft, "engine CPU by characters and windows, two levels", asked, both)
    draft.note(
        f"By characters: a text pays once {line.coefficients[2] * 1000:.0f} us for its first letters or digits, which "
        f"the tokenizer library is asked about, and {line.coefficients[3] * 1000:.0f} us for being cut into windows at "
        "all. The line is what is left."
    )
    draft.note(
        "Two levels: the children of all that was found are asked for, some in each hint, on every piece of the text; "
        "windows grow with the square of a text that has many pieces. That is how RexUniNLU asks, not how it is "
        "computed here; limits.text_chars (10,000) and limits.model_calls bound it."
    )
    _costs(draft, "Engine CPU by length of text", "characters", characters, costs, log=True)


def _ms(costs: Sequence[Cost]) -> list[float]:
    return [cost.milliseconds for cost in costs]


def _costs(
    draft: Draft, title: str, unit: str, x: Sequence[int], costs: dict[str, list[Cost]], *, log: bool = False
) -> None:
    columns = [unit, *(f"{name}: {what}" for name in costs for what in ("CPU ms", "windows"))]
    rows = [[at, *itertools.chain(*found)] for at, *found in zip(x, *costs.values(), strict=True)]
    draft.table(title, columns, rows)
    draft.lines(title, (unit, "CPU ms an event"), x, {name: _ms(found) for name, found in costs.items()}, log)


def on_kafka(draft: Draft, chosen: Sequence[str], *, quick: bool) -> None:
    """Measure parts that need a broker, or say why not."""
    try:
        jars = fetch_jars()
    except KafkaUnavailable as error:
        draft.note(f"Workers, lag and partitions were not measured: {error}.")
        return
    with tempfile.TemporaryDirectory() as name, Stage(jars, Path(name)) as stage:
        if "workers" in chosen:
            workers(draft, stage, quick=quick)
        if "lag" in chosen:
            lag(draft, stage)
        if "partitions" in chosen:
            partitions(draft, stage)


PARTS: Final = ("schema", "text", "workers", "lag", "partitions")


@click.command()
@click.option("--quick", is_flag=True, help="The engine, and up to four workers: under a minute.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write the section of the report.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="These parts.")
def main(quick: bool, file: Path | None, only: tuple[str, ...]) -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it started
    chosen = only or PARTS[:3] if quick else only or PARTS
    draft = Draft("Growth", CLAIM, ["what", "from ... to", "R²", "worst point off the line"])
    engine, rounds = engine_cost.demo_engine(), 15 if quick else 60
    if "schema" in chosen:
        schema(draft, engine, rounds)
    if "text" in chosen:
        text(draft, engine, rounds)
    if set(chosen) & set(PARTS[2:]):
        on_kafka(draft, chosen, quick=quick)
    draft.show()
    if file is not None:
        draft.write(file)


if __name__ == "__main__":
    main()
