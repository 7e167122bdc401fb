"""A long run at half load: memory, descriptors and threads of the worker must not grow, and the audit must be clean."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from chaos.reviews import mixture
from chaos.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.stage import Stage
    from chaos.worker import Worker

SAMPLE_SECONDS = 10.0
WARM_UP_SHARE = 1 / 6
"""Of the run: allocators, caches and connection pools fill."""

JUDGED_MINUTES = 30.0
"""A slope over less says more about the allocator's steps than about a leak: it is noted and not judged."""

SLOPE_LIMIT = 1_000_000
"""Bytes an hour."""

BURST = 3000
HIGHEST_RATE = 100.0
"""The rest of two cores is for the brokers, the model server and the load."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The worker at one moment."""

    seconds: float
    resident_bytes: int
    descriptors: int
    threads: int
    lag: int


def slope(samples: Sequence[Sample]) -> float:
    """Bytes an hour: least squares of the resident set over time."""
    found = statistics.linear_regression(
        [sample.seconds for sample in samples], [float(sample.resident_bytes) for sample in samples]
    )
    return found.slope * 3600


def _soak(stage: Stage) -> None:
    stage.set_up()
    worker = stage.worker()
    rate = _half_load(stage)
    stage.note(f"half load: {rate:.0f} events a second for {stage.minutes:g} minutes")
    stage.begin(rate, mixture(stage.random))
    samples = _sampled(stage, worker)
    file = (stage.report_folder or stage.folder) / f"soak-{stage.mode}.json"
    file.write_text(json.dumps([asdict(sample) for sample in samples]))
    stage.finish()
    _judge(stage, samples)


def _half_load(stage: Stage) -> float:
    """Half of what the worker does with a backlog."""
    stage.load.send(mixture(stage.random), BURST)
    started = time.monotonic()
    stage.wait(lambda: stage.topics.lag(stage.group, stage.input) == 0, "the first burst is done")
    return min(HIGHEST_RATE, BURST / (time.monotonic() - started) / 2)


def _sampled(stage: Stage, worker: Worker) -> list[Sample]:
    samples: list[Sample] = []
    ends = time.monotonic() + stage.minutes * 60
    said = 0.0
    while time.monotonic() < ends and worker.running:
        lag = stage.topics.lag(stage.group, stage.input)
        samples.append(
            Sample(round(stage.elapsed, 1), worker.resident_bytes(), worker.descriptors(), worker.threads(), lag)
        )
        if stage.elapsed >= said:
            last = samples[-1]
            stage.say(
                f"{last.seconds:.0f} s: {last.resident_bytes / 1e6:.1f} MB, {last.descriptors} descriptors, "
                f"{last.threads} threads, lag {last.lag}"
            )
            said += 300
        time.sleep(SAMPLE_SECONDS)
    return samples


def _judge(stage: Stage, samples: Sequence[Sample]) -> None:
    warm = [sample for sample in samples if sample.seconds >= samples[-1].seconds * WARM_UP_SHARE]
    growth = slope(warm)
    third = len(warm) // 3
    early, late = warm[:third], warm[-third:]
    judged = stage.minutes >= JUDGED_MINUTES
    stage.note(
        f"RSS slope {growth / 1e6:+.3f} MB/h over {len(warm)} samples after warm-up"
        + ("" if judged else f" (judged from {JUDGED_MINUTES:.0f} minutes on)")
        + f", {warm[0].resident_bytes / 1e6:.1f} to {warm[-1].resident_bytes / 1e6:.1f} MB"
    )
    if judged:
        stage.check(growth < SLOPE_LIMIT, f"RSS grows by {growth / 1e6:.2f} MB/h, limit {SLOPE_LIMIT / 1e6:.0f}")
    for name in ("descriptors", "threads"):
        before, after = (max(getattr(sample, name) for sample in part) for part in (early, late))
        stage.note(f"{name}: at most {before} in the first third, {after} in the last")
        stage.check(after <= before, f"{name} grew from {before} to {after}")


SCENARIOS = (
    Scenario(
        "soak",
        "nothing but half load for --minutes",
        "RSS slope under 1 MB/h after warm-up, descriptors and threads constant, no copy in either mode",
        _soak,
        on_demand=True,
    ),
)
