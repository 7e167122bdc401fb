"""What live events feel of a shadow run on the same model server, in simulated time."""

from __future__ import annotations

import statistics

from bench.shadow_beside_live import SERVERS, percentile
from bench.simulator.beside import beside

LOAD = 0.7
SEEDS = range(3)


def test_the_p99_of_live_events_grows_by_a_tenth_at_most() -> None:
    """With the default share, in front of the demo model on a CPU; without sparing it grows many times over."""
    _, cost, max_tokens, seconds = SERVERS[0]
    p99 = {
        share: [percentile(beside(LOAD, share, seed, seconds, cost, max_tokens).latencies, 0.99) for seed in SEEDS]
        for share in (None, 0.1)
    }
    assert statistics.median(with_it / alone for alone, with_it in zip(*p99.values(), strict=True)) <= 1.1
    assert percentile(beside(LOAD, 1.0, 0, 20, cost, max_tokens).latencies, 0.99) > 3 * p99[None][0]
