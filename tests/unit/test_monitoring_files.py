"""Alerts, dashboards, runbooks and documents name only what exists: metrics, commands, options, pages."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client import generate_latest

from consumer.telemetry.metric_declarations import TRACING_COUNTERS
from consumer.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "rexstream"
RUNBOOKS = sorted((ROOT / "deploy" / "runbooks").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md", *RUNBOOKS]
ALERTS = [
    rule
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]


def test_every_metric_that_is_named_is_one_that_a_worker_shows() -> None:
    """Documents, alerts, dashboards and the chart's triggers against the text of a worker's /metrics."""
    shown = set(re.findall(r"^# TYPE (rexstream_\w+) ", generate_latest(Metrics().registry).decode(), re.MULTILINE))
    shown.update(TRACING_COUNTERS)
    assert len(shown) > 20
    named: dict[str, str] = {}
    for path in [*DOCUMENTS, *CHART.rglob("*.yaml"), *CHART.rglob("*.json")]:
        for name in re.findall(r"\brexstream_[a-z_]+\b", path.read_text("utf-8")):
            named.setdefault(name, path.name)
    assert len(named) > 30
    for name, place in named.items():
        assert {name, re.sub("_(bucket|sum|count)$", "", name)} & shown, f"{place} names {name}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """The page that the alert names is there, is about it, and says what it means, how to see it, and what to do."""
    assert [f"{rule['alert']}.md" for rule in sorted(ALERTS, key=lambda rule: str(rule["alert"]))] == [
        p.name for p in RUNBOOKS
    ]
    for rule in ALERTS:
        assert rule["annotations"]["runbook"] == f"deploy/runbooks/{rule['alert']}.md"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        page = (ROOT / rule["annotations"]["runbook"]).read_text("utf-8")
        assert page.startswith(f"# {rule['alert']}: ")
        assert "\n**It means** " in page
        assert re.findall("^## (.*)$", page, re.MULTILINE) == ["See it", "Do"]
