"""What Prometheus says of a span of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal.rules import FAST
from rehearsal.step import Span

if TYPE_CHECKING:
    from deploy.prometheus_server import Prometheus

QUANTILES = (0.5, 0.95, 0.99)
_WINDOW = 4
"""Seconds behind a point of a curve."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one span. None where there is nothing to say it of."""

    events: float | None
    """Records that became durable, a second."""
    latency: tuple[float | None, ...]
    """Seconds from the broker's timestamp to durable, for each of QUANTILES."""
    failed_calls: float | None
    """Share of model calls that did not end with OK."""
    dead_letters: float | None
    """Share of records that became dead letters, wholly or in part."""


def figures(prometheus: Prometheus, span: Span) -> Figures:
    """The figures of a span of at least two scrapes."""
    window = f"[{max(2, round(span.seconds))}s]"

    def ask(query: str) -> float | None:
        found = prometheus.get("query", query=query, time=str(span.ended))["result"]
        value = float(found[0]["value"][1]) if found else math.nan
        return None if math.isnan(value) else value

    events = f"sum(rate(rexstream_events_total{window}))"
    return Figures(
        ask(events),
        tuple(ask(_quantile(quantile, window)) for quantile in QUANTILES),
        ask(
            f'(sum(rate(rexstream_model_call_seconds_count{{code!="OK"}}{window})) or vector(0))'
            f" / sum(rate(rexstream_model_call_seconds_count{window}))"
        ),
        ask(f'(sum(rate(rexstream_events_total{{outcome=~"dead_letter|partial"}}{window})) or vector(0)) / {events}'),
    )


def curve(prometheus: Prometheus, query: str, span: Span) -> tuple[list[float], list[float]]:
    """Seconds since the span began and values, a second apart; no point where there is no value."""
    found: list[Any] = prometheus.get(
        "query_range", query=query, start=str(span.began), end=str(span.ended), step="1s"
    )["result"]
    points = [(float(at) - span.began, float(value)) for each in found[:1] for at, value in each["values"]]
    kept = [(at, value) for at, value in points if not math.isnan(value)]
    return [at for at, _ in kept], [value for _, value in kept]


def curves(prometheus: Prometheus, span: Span) -> dict[str, tuple[list[float], list[float]]]:
    """Events a second and latency over time."""
    window = f"[{_WINDOW}s]"
    asked = {"events a second": f"sum(rate(rexstream_events_total{window}))"}
    asked |= {f"p{quantile * 100:.0f}": _quantile(quantile, window) for quantile in QUANTILES}
    return {name: curve(prometheus, query, span) for name, query in asked.items()}


@dataclass(frozen=True, slots=True)
class Fired:
    """An alert that fired."""

    name: str
    fast: bool
    """Whether on the clock on which a minute is a second."""
    about: str
    """Its labels but job and severity."""
    span: Span


def fired(prometheus: Prometheus, span: Span) -> list[Fired]:
    """Each time that an alert fired within the span, by begin. One that came back within 3 s did not go."""
    series: list[Any] = prometheus.get(
        "query_range", query='ALERTS{alertstate="firing"}', start=str(span.began), end=str(span.ended), step="1s"
    )["result"]
    found: list[Fired] = []
    for each in series:
        labels = each["metric"]
        about = ", ".join(
            f"{name} {value}"
            for name, value in sorted(labels.items())
            if name not in ("__name__", "alertname", "alertstate", "clock", "job", "severity")
        )
        found += [
            Fired(labels["alertname"], labels.get("clock") == FAST, about, Span(times[0], times[-1]))
            for times in _runs([float(at) for at, _ in each["values"]])
        ]
    return sorted(found, key=lambda each: each.span.began)


def _runs(times: list[float]) -> list[list[float]]:
    runs: list[list[float]] = []
    for at in times:
        if runs and at - runs[-1][-1] <= 3:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def _quantile(quantile: float, window: str) -> str:
    return (
        f"histogram_quantile({quantile},"
        f' sum by (le) (rate(rexstream_event_latency_seconds_bucket{{point="durable"}}{window})))'
    )
