"""One consumer group that grows: workers against simulated model servers that are slower than any of them.

Each worker has a server of its own. A server takes so long that a worker needs a small part of a core: if workers cost
each other nothing, twice as many do twice as much.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.growing.stage import evenly

from consumer.batching.policy import CallCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.growing.stage import Stage, WorkerProcess

COST: Final = CallCost(floor=0.0, fixed=0.02, per_token=1e-4, per_pair=0.0)
"""An event has some 120 tokens on two levels, so a server does about 70 events a second: eight need 0.6 cores of their
workers."""
TEXT: Final = "屏幕很清晰，充电也快，就是外壳容易沾指纹，用了两周整体还算满意，客服回复也及时。"
"""Of all events, so that all take the servers equally long."""
PARTITIONS: Final = 16
MAX_TOKENS: Final = 1_024
"""Calls of a tenth of a second: many in the stretch that is measured."""
IN_FLIGHT: Final = 150
"""Events of a worker, two seconds of its server: the group waits for them when a partition moves."""
EVENTS_A_SECOND: Final = 150
"""More than a server does."""
SETTLE_SECONDS: Final = 2.0
"""What a partition's last owner had in flight is done, and its new one has work."""


class Step(NamedTuple):
    """So many workers for a while."""

    workers: int
    events_per_second: float
    cores: float
    """CPU seconds a second of all workers together."""


def grow(stage: Stage, sizes: Sequence[int], seconds: float) -> list[Step]:
    """Measure the group at each of its ``sizes``, which grow, for so many seconds."""
    addresses = stage.servers(sizes[-1], COST)
    topics = stage.topics(PARTITIONS)
    # Starting and settling take some ten seconds a step.
    stage.fill(topics, [TEXT], int(EVENTS_A_SECOND * sum(size * (seconds + 10) for size in sizes)))
    workers: list[WorkerProcess] = []
    steps = []
    for size in sizes:
        for address in addresses[len(workers) : size]:
            limits = {"in_flight_events": IN_FLIGHT}
            workers.append(stage.worker(topics, address, topics.input, COST, limits=limits, max_tokens=MAX_TOKENS))
        stage.wait_for_shares(topics.input, evenly(PARTITIONS, size), *workers)
        stage.wait_for_results(topics, stage.results(topics) + 1, *workers)
        time.sleep(SETTLE_SECONDS)
        began, cpu, done = time.monotonic(), sum(one.cpu_seconds() for one in workers), stage.results(topics)
        time.sleep(seconds)
        took, results = time.monotonic() - began, stage.results(topics) - done
        used = sum(one.cpu_seconds() for one in workers) - cpu
        steps.append(Step(size, results / took, used / took))
    return steps
