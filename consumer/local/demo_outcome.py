"""What the demo read of a run, and its audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.local.demo_events import DemoEvent

TASKS = ("product_features", "sentiment", "category")


@dataclass(slots=True)
class Seen:
    """All records read from the output topics."""

    results: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(event id, task) -> ExtractionResult."""
    latencies_ms: list[float] = field(default_factory=list)
    """Milliseconds from input timestamp to output timestamp, per result."""
    doubled: int = 0
    dead_letters: dict[str, dict[str, str]] = field(default_factory=dict)
    """Key of the record -> its dead-letter headers."""


@dataclass(frozen=True, slots=True)
class WorkerNumbers:
    """Read from the worker's own /metrics and /status at the end."""

    batches: int
    windows: int
    batch_rows_p50: float | None
    padding_ratio: float | None
    rss_bytes: float
    dropped: int


def missing(samples: Sequence[DemoEvent], broken: Sequence[DemoEvent], seen: Seen, dropped: int) -> list[str]:
    """What should have arrived and did not, one line each; empty when nothing is missing."""
    wanted = [(event.key, task) for event in samples for task in TASKS]
    letters = {event.key: event.fault for event in broken if event.value is not None}
    nulls = len(broken) - len(letters)
    return [
        *(f"no {task} result for {key}" for key, task in wanted if (key, task) not in seen.results),
        *(f"no dead letter for {key} ({fault})" for key, fault in letters.items() if key not in seen.dead_letters),
        *(f"{key} is a dead letter but was not broken" for key in seen.dead_letters.keys() - {e.key for e in broken}),
        *([f"{dropped} null values were counted as dropped, {nulls} were sent"] if dropped != nulls else []),
    ]
