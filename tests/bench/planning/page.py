"""The computed parts of docs/capacity.md."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Final

from bench.planning.plan import BUSY, EVENTS, GOAL_SECONDS, PEAK, SEEDS, SPARE, rate_of
from bench.simulator.simulate import CALL_SECONDS, DELAY, ROW_SECONDS

from consumer.batching.queue import padded_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.planning.plan import Plan, Recorded, ServerKind

BEGIN, END = "<!-- computed: {} -->\n", "<!-- end -->\n"
COLUMNS: Final = ("reviews a day", "at the peak", "workers", "model servers", "p50 at the peak", "p99 at the peak")


def page(document: str, found: Recorded, plans: Mapping[ServerKind, Sequence[Plan]]) -> str:
    """``document`` with its computed parts written anew. Raises ValueError where one has no place in it."""
    tables = "".join(
        f"### {kind.title}\n\n{_of_servers(kind, found)}\n\n{_table(COLUMNS, [_row(row) for row in rows])}\n"
        for kind, rows in plans.items()
    )
    document = _replaced(document, "plans", tables)
    return _replaced(document, "assumptions", _table(("assumption", "value", "from"), _assumptions(found)))


def _replaced(document: str, name: str, part: str) -> str:
    before, begin, rest = document.partition(BEGIN.format(name))
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/capacity.md has no {BEGIN.format(name).strip()} with {END.strip()} behind it")
    return f"{before}{begin}{part}{end}{after}"


def _of_servers(kind: ServerKind, found: Recorded) -> str:
    cost = kind.cost
    terms = [f"{cost.fixed * 1000:.3g} ms"] * (cost.fixed > 0)
    terms += [f"{cost.per_token * 1e6:.3g} µs · B·L"] * (cost.per_token > 0)
    terms += [f"{cost.per_pair * 1e9:.3g} ns · B·L²"] * (cost.per_pair > 0)
    floor = f", {cost.floor * 1000:.3g} ms at least" if cost.floor else ""
    return fill(
        f"{kind.origin} A call of B windows padded to L tokens takes {' + '.join(terms)}{floor}. Calls have at most "
        f"{kind.max_tokens:,} tokens, {kind.calls} are in flight for each server. In full calls one server does "
        f"{rate_of(kind, found):.3g} reviews a second.",
        130,
    )


def _row(plan: Plan) -> tuple[str, ...]:
    over = "" if plan.p99 < GOAL_SECONDS else f" (over {GOAL_SECONDS:g} s)"
    waits = (f"{plan.p50:.2f} s", f"{plan.p99:.2f} s{over}")
    return (f"{plan.millions} million", f"{plan.peak:,.0f}/s", str(plan.workers), str(plan.servers), *waits)


def _assumptions(found: Recorded) -> list[tuple[str, str, str]]:
    lengths = [padded_length(length) for review in found.reviews for level in review for length in level]
    reviews = len(found.reviews)
    small, large = (found.cpu_ms[kind] for kind in ("demo", "assumed"))
    later = sum(len(level) for review in found.reviews for level in review[1:]) / reviews
    client = f"{CALL_SECONDS * 1000:g} ms a call and {ROW_SECONDS * 1000:g} ms a window in the worker"
    return [
        ("tasks of a review", ", ".join(found.tasks), "as in the demo"),
        (
            "windows of a review",
            f"{len(lengths) / reviews:.2f}, {later:.2f} of them on later levels",
            f"the {reviews} sample reviews, asked of the demo model; other texts and models: others",
        ),
        ("padded tokens of a review", f"{sum(lengths) / reviews:.0f}", "the same"),
        (
            "CPU of a worker for a review",
            f"{small:.2f} ms with the demo model's small calls, {large:.2f} ms with an accelerator's",
            f"measured {found.date} with a server, the latter simulated, that never rests ({found.machine})",
        ),
        ("peak", f"{PEAK} times the day's mean", "assumed"),
        (
            "busy at the peak",
            f"{BUSY * 100:g} % of a server, {BUSY * 100:g} % of a core of a worker, at most",
            "assumed",
        ),
        ("spare", f"{SPARE} worker, {SPARE} server: in the tables, not in the waits", "assumed"),
        ("arrivals", "independent of each other (Poisson), at the peak's rate all the time", "assumed"),
        (
            "waits",
            f"{len(SEEDS)} runs of {EVENTS:,} reviews in the simulator, with the worker's own batching policy",
            "one worker with its part of the servers; where servers are fewer, one server and its workers as one",
        ),
        (
            "beside the model",
            f"{DELAY * 1000:g} ms of network each way; {client}",
            "as in `tests/bench/simulator`, where call times vary by 6 % and 4 of 1,000 take three times as long",
        ),
        (
            "not in the waits",
            "Kafka, and windows that wait for the worker's event loop",
            "100 windows that are answered together keep the loop for some 40 ms; Kafka's part is the cluster's",
        ),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, ["---"] * len(columns), *rows))
