"""Which benchmarks the report consists of, in its order."""

from __future__ import annotations

from typing import Final, NamedTuple


class Benchmark(NamedTuple):
    """A program of tests/bench that takes ``--quick`` and ``--json`` (tests/bench/README.md)."""

    name: str
    """Of its files in the report's folder."""
    program: str
    quick_seconds: float
    """It is stopped after so long: several times what it takes on two quiet cores."""
    full_seconds: float
    full: tuple[str, ...] = ()
    """Its arguments for everything there is."""
    in_quick: bool = True
    """Whether the quick report has it, which is to take five minutes; ``--only`` always does."""


BENCHMARKS: Final = (
    Benchmark("worker-against-loop", "worker_against_loop.py", 120, 1200),
    Benchmark("engine-against-older", "engine_against_older.py", 90, 300),
    Benchmark("flame-graphs", "flame_graphs.py", 240, 900, in_quick=False),
    Benchmark("delivery-modes", "delivery_modes.py", 120, 900),
    Benchmark("limit", "limit.py", 150, 1800),
    Benchmark("simulator-honesty", "simulator_honesty.py", 150, 1800),
    Benchmark("batching", "batching.py", 150, 10_800, ("--full",)),
    Benchmark("peers", "against_peers.py", 150, 3600),
    Benchmark("growth", "growth.py", 150, 3600),
    Benchmark("capacity", "capacity.py", 60, 600),
    Benchmark("shadow-beside-live", "shadow_beside_live.py", 240, 3600, in_quick=False),
    Benchmark("footprint", "worker_footprint.py", 120, 300),
)
