"""What ``/status`` answers: the worker at this moment. Topic names, counters and reasons; never review text."""

from __future__ import annotations

import math
from collections import Counter
from itertools import accumulate
from typing import Any, Literal, TypedDict

GROWTH = 1.04
"""Borders of logarithmic buckets grow by this factor, so the middle of one is at most 2 % away from what it holds."""
LOG_GROWTH = math.log(GROWTH)

Counts = Counter["str | tuple[str, int]"]
"""Sums by name; how often values occurred, by name and logarithmic bucket."""


class AssignedPartition(TypedDict):
    topic: str
    partition: int
    lag: int | None
    """Records between the committed offset and the end; None until it was queried, and when that was long ago."""
    lag_age_seconds: float | None
    """Since it was queried, or since it was first to be; None before that."""


class CallCostStatus(TypedDict):
    """What a call of B windows padded to L tokens is expected to take, as in ``batching.cost``."""

    known: Literal["configured", "measured", "assumed"]
    """By the configuration, by the worker's own measurement at its start, or not at all."""
    floor_seconds: float
    fixed_seconds: float
    linear_seconds: float
    square_seconds: float


class VariantsStatus(TypedDict, total=False):
    """Only where there are several ways to the model."""

    canary: dict[str, Any] | None
    """``share``, ``fallback`` (its reason, or null) and ``detail``; None without a canary."""
    variants: list[dict[str, Any]]
    """``variant`` (stable, canary), ``bundle``, ``usable``, ``reason``, and ``windows``: those in calls or waiting."""


class ModelStatus(VariantsStatus):
    target: str
    name: str
    version: str | None
    """The version that answered last; None before the first answer."""
    versions: list[dict[str, Any]]
    """The fields of ``version_metrics.VersionActivity`` for each version that was met in the last minute."""
    available: bool
    call_cost: CallCostStatus
    endpoints: list[dict[str, Any]]
    """The fields of ``serving.dispatch.endpoint.EndpointStatus`` for each, and ``state_seconds``: for how long."""


class RecentActivity(TypedDict):
    """The last minute, and totals since the start. ``Metrics.recent()`` fills it."""

    rates: dict[Literal["events_per_second", "windows_per_second"], float]
    latency_ms: dict[Literal["p50", "p95", "p99"], float | None]
    """Broker timestamp to durable result, milliseconds; None without a durable event in the last minute."""
    batches: dict[Literal["rows_p50", "tokens_p50", "padding_ratio"], float | None]
    """``padding_ratio``: padding among all tokens sent in the last minute, 0..1. None without a batch."""
    totals: dict[str, int]
    """Processed events by outcome, since the start."""
    dead_letters: dict[str, int]
    """Dead letters by reason, since the start, the latest reason last."""


class TopicFlood(TypedDict):
    state: Literal["flowing", "paused", "trial"]
    reason: str | None
    """What made the pause begin; None while consumption flows."""
    classes: dict[str, int]
    """How many of the events that made it pause have a dead letter of each class, most first; empty while it flows."""
    examples: list[str]
    """The last of their records, ``topic-partition@offset``."""
    trial_in_seconds: float
    """Seconds until the pause ends in a trial; 0 when there is no pause."""


class FloodStatus(TopicFlood):
    """The first input topic that is paused, else the first on trial, else one that flows."""

    topics: dict[str, TopicFlood]
    """Every input: topics and patterns."""


class WorkerStatus(RecentActivity):
    service: str
    version: str
    worker: str
    group: str
    """The consumer group that it is in, or is to join."""
    state: str
    state_seconds: float
    """For how long it has been in this state. Seconds of states are known to half a second."""
    uptime_seconds: float
    ready: bool
    ready_seconds: float
    """For how long it has been ready, or not."""
    reasons: list[str]
    """Why the worker is not ready, in words; empty when it is."""
    waiting: dict[str, list[str]]
    """Why inputs, topics or patterns, are not consumed although others may be, in words."""
    unreachable: str
    """Brokers that this worker needs and does not reach, with the way out; empty without any."""
    assignment: list[AssignedPartition]
    in_flight: dict[Literal["events", "bytes", "windows"], int]
    """All of one moment, at most half a second ago."""
    paused: list[str]
    """Why consumption of some or all input topics is paused; empty when none is."""
    paused_topics: dict[str, list[str]]
    """The inputs that are paused, by reason."""
    paused_seconds: dict[str, float]
    """For how long there has been each of these reasons."""
    pattern_topics: dict[str, int]
    """How many topics each pattern among the inputs matches; empty until that was looked for."""
    flood: FloodStatus
    """The dead-letter breaker's state."""
    model: ModelStatus


def quantile(counts: Counts, name: str, share: float) -> float | None:
    """The value at or below which that share (0..1) of the values lies, within 2 %; None without values."""
    found = {key[1]: count for key, count in counts.items() if isinstance(key, tuple) and key[0] == name}
    rank = max(1, math.ceil(share * sum(found.values())))
    buckets = sorted(found)
    for bucket, seen in zip(buckets, accumulate(found[bucket] for bucket in buckets), strict=True):
        if seen >= rank:
            # The middle in relative terms: equally far, in per cent, from both borders of the bucket.
            return float(2 * GROWTH**bucket / (GROWTH + 1))
    return None


def milliseconds(seconds: float | None) -> float | None:
    """Of seconds, to a tenth."""
    return None if seconds is None else round(seconds * 1000, 1)
