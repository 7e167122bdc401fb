"""What ``/status`` answers: the worker at this moment. Topic names, counters and reasons; never review text."""

from __future__ import annotations

from typing import Literal, TypedDict


class AssignedPartition(TypedDict):
    topic: str
    partition: int
    lag: int | None
    """Records between the committed offset and the end; None until it was queried."""


class InFlight(TypedDict):
    events: int
    bytes: int
    windows: int


class ModelStatus(TypedDict):
    target: str
    name: str
    version: str | None
    """The version that answered last; None before the first answer."""
    available: bool


class Rates(TypedDict):
    events_per_second: float
    windows_per_second: float


class LatencyMs(TypedDict):
    """Broker timestamp to durable result, milliseconds; None without a finished event in the last minute."""

    p50: float | None
    p95: float | None
    p99: float | None


class Batches(TypedDict):
    rows_p50: float | None
    tokens_p50: float | None
    padding_ratio: float | None
    """Padding among all tokens sent in the last minute, 0..1."""


class RecentActivity(TypedDict):
    """The last minute, and totals since the start. ``Metrics.recent()`` fills it."""

    rates: Rates
    latency_ms: LatencyMs
    batches: Batches
    totals: dict[str, int]
    """Finished events by outcome, since the start."""
    dead_letters: dict[str, int]
    """Dead letters by reason, since the start, the latest reason last."""


class FloodStatus(TypedDict):
    state: Literal["flowing", "paused", "trial"]
    reason: str | None
    """What the pause began with; None while consumption flows."""
    trial_in_seconds: float
    """0 when there is no pause."""


class WorkerStatus(RecentActivity):
    service: str
    version: str
    worker: str
    state: str
    uptime_seconds: float
    ready: bool
    reasons: list[str]
    """Why the worker is not ready, in words; empty when it is."""
    assignment: list[AssignedPartition]
    in_flight: InFlight
    paused: list[str]
    """Why consumption is paused; empty when it is not."""
    flood: FloodStatus
    """Of dead letters."""
    model: ModelStatus
