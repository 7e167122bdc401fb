"""What a rehearsal says in the end: Markdown for people, with a picture of the time that it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rehearsal.figures import QUANTILES, Figures, Fired, curves, figures, fired

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from deploy.prometheus_server import Prometheus
    from rehearsal.act import Act
    from rehearsal.step import Span, Step

_COLOURS = {"p50": "#009e73", "p95": "#e69f00", "p99": "#d55e00"}
_NO_STEP = "between the steps"


@dataclass(frozen=True, slots=True)
class Measured:
    """One act with what Prometheus says of it."""

    act: Act
    by_step: Sequence[tuple[Step, tuple[Figures, Figures, Figures]]]
    """Before, during and after."""
    fired: Sequence[tuple[Fired, Step | None, str | None]]
    """Each alert with the step in which it began to fire, and why it may; None for one that may not."""

    def broken(self) -> list[str]:
        """Every promise that did not hold, alerts' included."""
        act = self.act
        found = [f"{step.name}: {each.words}" for step in act.steps for each in step.promises if not each.holds]
        found += [
            f"{step.name if step else _NO_STEP}: {alert.name} fired, which it should not ({_clock(alert)})"
            for alert, step, reason in self.fired
            if reason is None
        ]
        for step in act.steps:
            seen = {alert.name for alert, its, _ in self.fired if its is step and alert.fast}
            found += [f"{step.name}: {name} did not fire" for name in sorted(step.must - seen)]
        return [f"{act.mode}: {each}" for each in found]


def measure(act: Act, prometheus: Prometheus) -> Measured:
    """Ask Prometheus while it is there."""
    spans = [(step, (step.before, step.during, step.after)) for step in act.steps if step.before.seconds]
    alerts = []
    for alert in fired(prometheus, act.span):
        step = next((step for step in reversed(act.steps) if step.during.began <= alert.span.began), None)
        alerts.append((alert, step, why(alert, step)))
    return Measured(
        act,
        [(step, tuple(figures(prometheus, span) for span in three)) for step, three in spans],  # type: ignore[misc]
        alerts,
    )


def why(alert: Fired, step: Step | None) -> str | None:
    """Why an alert may fire in a step; None where it may not, as with the shipped times nothing may."""
    if step is None or not alert.fast:
        return None
    return "it must" if alert.name in step.must else step.may.get(alert.name)


def summary(measured: Measured) -> list[str]:
    """The figures as a Markdown table."""
    quantiles = ", ".join(f"p{quantile * 100:.0f}" for quantile in QUANTILES)
    heads = ["step", "as usual again after", "reviews/s before, during, after", f"{quantiles} before (s)", "during"]
    heads += ["after", "failed calls", "dead letters", "promises"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for step, (before, during, after) in measured.by_step:
        kept = sum(promise.holds for promise in step.promises)
        rates = ", ".join(_number(each.events, 0) for each in (before, during, after))
        cells = (
            step.name,
            "never" if step.to_recover is None else f"{step.to_recover:.0f} s",
            rates,
            *(", ".join(_number(value, 2) for value in each.latency) for each in (before, during, after)),
            *("-" if share is None else f"{share:.1%}" for share in (during.failed_calls, during.dead_letters)),
            f"{kept} of {len(step.promises)} kept",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def audit_table(measured: Measured) -> list[str]:
    """What became of every record."""
    if not measured.act.audits:
        return ["It ended early: no record was audited."]
    lines = [
        "| input | records | results | dead letters | missing | duplicates | versions named |",
        "|---|---|---|---|---|---|---|",
    ]
    for topic, found in measured.act.audits.items():
        versions = ", ".join(f"{version}: {count}" for version, count in sorted(found.versions.items()))
        counts = (found.inputs, found.results, found.dead_letters.total(), len(found.missing), found.duplicates)
        lines.append(f"| {topic} | {' | '.join(map(str, counts))} | {versions} |")
    return lines


def alert_table(measured: Measured) -> list[str]:
    """What fired, and whether it should have."""
    if not measured.fired:
        return ["No alert fired on either clock."]
    lines = ["| alert | clock | step | seconds | about | should it |", "|---|---|---|---|---|---|"]
    for alert, step, reason in measured.fired:
        name = step.name if step else _NO_STEP
        cells = (alert.name, _clock(alert), name, f"{alert.span.seconds:.0f}", alert.about, reason or "**no**")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def write(path: Path, head: str, acts: Sequence[Measured], prometheus: Prometheus) -> None:
    """The report, and beside it a picture of each act."""
    path.parent.mkdir(parents=True, exist_ok=True)
    broken = [each for measured in acts for each in measured.broken()]
    lines = ["# Rehearsal", "", head, "", f"**{'Every promise was kept.' if not broken else 'Promises were broken:'}**"]
    lines += ["", *(f"- {each}" for each in broken)] if broken else []
    for measured in acts:
        act = measured.act
        picture = path.with_name(f"timeline-{act.mode}.png")
        _draw(measured, picture, prometheus)
        lines += ["", f"## {act.mode}", "", *summary(measured), "", f"![{act.mode} over time]({picture.name})"]
        lines += ["", *audit_table(measured), "", *alert_table(measured)]
        for number, step in enumerate(act.steps, 1):
            lines += ["", f"### {number}. {step.name}", "", f"{step.what}.", "", *_told(step)]
        lines += ["", *(f"- {note}" for note in act.notes)] if act.notes else []
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(step: Step) -> Iterator[str]:
    yield from (f"    {line}" for line in step.log)
    yield ""
    yield from (f"- {'kept' if promise.holds else '**broken**'}: {promise.words}" for promise in step.promises)


def _draw(measured: Measured, path: Path, prometheus: Prometheus) -> None:
    from matplotlib.figure import Figure  # not at the top: it takes a second

    act = measured.act
    figure = Figure(figsize=(14, 9), dpi=100, layout="constrained")
    rate, latency, lag, alerts = figure.subplots(4, 1, sharex=True, height_ratios=(2, 3, 2, 1.5))
    found = curves(prometheus, act.span)
    rate.plot(*found.pop("events a second"), color="#0072b2")
    rate.set_ylabel("reviews a second")
    for name, points in found.items():
        latency.plot(*points, color=_COLOURS[name], label=name)
    latency.set_yscale("log")
    latency.set_ylabel("seconds to durable")
    latency.legend(loc="upper left", frameon=False)
    lag.plot([each.at - act.span.began for each in act.lags], [each.records for each in act.lags], color="#cc79a7")
    lag.set_ylabel("not committed")
    names = sorted({_labelled(alert) for alert, _, _ in measured.fired})
    for alert, _, reason in measured.fired:
        span = (alert.span.began - act.span.began, max(1.0, alert.span.seconds))
        alerts.broken_barh([span], (names.index(_labelled(alert)) - 0.4, 0.8), color="#999999" if reason else "#d55e00")
    alerts.set_yticks(range(len(names)), names)
    alerts.set_ylim(-0.5, max(1, len(names)) - 0.5)
    alerts.set_xlabel("seconds; grey: a step until all is as usual; alerts that should not have fired are red")
    for axes in (rate, latency, lag, alerts):
        axes.set_xlim(0, act.span.seconds)
        axes.spines[["top", "right"]].set_visible(False)
        for step in act.steps:
            _shade(axes, step.during, act.span)
    for step in act.steps:
        rate.annotate(
            step.name, (step.during.began - act.span.began, 1.02), xycoords=("data", "axes fraction"), fontsize=8
        )
    rate.set_ylim(bottom=0)
    rate.set_title(f"{act.mode}, {act.rate:.0f} reviews a second", pad=20)
    figure.savefig(path)


def _shade(axes: object, span: Span, within: Span) -> None:
    axes.axvspan(  # type: ignore[attr-defined]
        span.began - within.began, span.ended - within.began, color="#000000", alpha=0.07, linewidth=0
    )


def _labelled(alert: Fired) -> str:
    return f"{alert.name} ({_clock(alert)})"


def _clock(alert: Fired) -> str:
    return "fast" if alert.fast else "shipped"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
