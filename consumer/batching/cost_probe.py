"""What a worker measures of an unknown model server before it consumes: which calls, when it stops, what it believes.

Pure. A few calls of growing size, which cost the server two seconds at most; ``rexstream tune`` measures it properly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.batching.call_cost import Cell, fit_call_cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.batching.policy import CallCost

SECONDS: Final = 2.0
"""For all calls together."""
LONGEST_SECONDS: Final = 0.5
"""No larger call follows one that took so long."""
REPEATS: Final = 3
"""Of each call: their median leaves out the first one of its shape, which a server may prepare for."""
FEWEST_CELLS: Final = 5
"""Four coefficients need more than four points."""
LARGEST_ERROR: Final = 0.25
"""Beyond it something else decided how long the calls took: other clients, a server that starts."""
ROWS: Final = (1, 4, 16, 64, 256)
LENGTHS: Final = (32, 128, 512)


def shapes(shortest: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Rows and padded lengths of the calls, in order of tokens; no length below ``shortest``."""
    lengths = sorted({max(shortest, length) for length in LENGTHS})
    found = [(rows, length) for rows in ROWS for length in lengths if rows * length <= max(512, max_tokens)]
    yield from sorted(found, key=lambda shape: (shape[0] * shape[1], shape[0]))


def goes_on(cells: Sequence[Cell], spent: float) -> bool:
    """Whether to make a larger call, after ``spent`` seconds of calls."""
    return spent < SECONDS and (not cells or cells[-1].seconds < LONGEST_SECONDS)


def believed(cells: Sequence[Cell]) -> CallCost | None:
    """The cost that the measured cells show; None where they are too few, or contradict each other.

    Where all calls took as long, since each was small beside the floor, that is what is known: with an accelerator's
    cost instead, calls would be too many. In the simulator p99 was twice to five times as high at floors of 80 and
    150 ms.
    """
    if len(cells) < FEWEST_CELLS or min(cell.seconds for cell in cells) <= 0:
        return None
    cost = fit_call_cost(cells)
    return cost if cost.error <= LARGEST_ERROR else None
