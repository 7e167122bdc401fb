"""Compose file and Dockerfile against what their tools know, and every query against Prometheus' language."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deploy.chart import ALERTS, DASHBOARDS, ROOT, queries
from deploy.tools import tool

from consumer.telemetry.metric_declarations import COUNTERS, GAUGES, HISTOGRAMS
from consumer.telemetry.version_metrics import MODEL_CALL, VERSION_COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALERTS_TEST = ROOT / "tests" / "deploy" / "alerts_test.yaml"
TARGET_LABELS = {"job", "instance", "namespace", "le", "__name__"}
"""What Prometheus, or a histogram, adds to a metric's own labels."""
OWN_LABELS = {name: set(labels) for name, (_, labels) in (COUNTERS | GAUGES).items()} | {
    f"{name}_{part}": set(labels)
    for name, (_, labels, _) in (HISTOGRAMS | {"rexstream_model_call_seconds": MODEL_CALL}).items()
    for part in ("bucket", "sum", "count")
}
OWN_LABELS |= {name: {"model", "version", "task"} for name in VERSION_COUNTERS}

# Run in the tools' environment: selectors of each expression, with the labels that they match, and labels of groupings.
PARSE = """
import json, sys
import promql_parser as p
def walk(node, selectors, groups):
    if isinstance(node, p.VectorSelector):
        selectors.append([node.name, [m.name for m in node.matchers.matchers]])
    for name in ("expr", "vector_selector", "lhs", "rhs", "param"):
        if isinstance(getattr(node, name, None), p.Expr): walk(getattr(node, name), selectors, groups)
    for argument in getattr(node, "args", None) or ():
        if isinstance(argument, p.Expr): walk(argument, selectors, groups)
    modifier = getattr(node, "modifier", None)
    labels = getattr(modifier, "labels", None)
    if labels is not None and isinstance(node, p.AggregateExpr): groups.extend(labels)
    return {"selectors": selectors, "groups": groups}
print(json.dumps([walk(p.parse(each), [], []) for each in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    """What promql-parser makes of each expression; one that it cannot parse fails here."""
    every = queries()
    done = subprocess.run(
        [tool("python"), "-c", PARSE],
        input=json.dumps(list(every.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(every, json.loads(done.stdout), strict=True))


def test_the_compose_file_follows_the_specification(packaged: Callable[..., str]) -> None:
    """check-jsonschema with the schema of the compose specification."""
    packaged("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / "deploy/compose/compose.yaml"))


def test_hadolint_finds_nothing_in_the_dockerfile(packaged: Callable[..., str]) -> None:
    """No rule is switched off."""
    packaged("hadolint", str(ROOT / "Dockerfile"))


def test_promtool_accepts_alerts_and_configuration(packaged: Callable[..., str]) -> None:
    """The rules, and compose's prometheus.yml, whose rule file is elsewhere in its container."""
    packaged("promtool", "check", "rules", str(ALERTS))
    packaged("promtool", "check", "config", "--syntax-only", str(ROOT / "deploy/prometheus/prometheus.yml"))


def test_every_alert_fires_when_it_should_and_not_before(packaged: Callable[..., str]) -> None:
    """promtool's unit tests; each alert has one that expects it and one that expects nothing."""
    packaged("promtool", "test", "rules", str(ALERTS_TEST))
    tests = yaml.safe_load(ALERTS_TEST.read_text("utf-8"))["tests"]
    expected: dict[str, set[bool]] = {}
    for test in tests:
        for case in test["alert_rule_test"]:
            expected.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    alerts = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]}
    assert expected == {alert: {True, False} for alert in alerts}


def test_every_metric_of_ours_in_a_query_exists_with_its_labels(parsed: dict[str, Any]) -> None:
    """A selector of rexstream_… names a series that a worker has, and matches only labels of it."""
    seen = 0
    for place, found in parsed.items():
        ours = [(name, labels) for name, labels in found["selectors"] if (name or "").startswith("rexstream_")]
        for name, labels in ours:
            assert name in OWN_LABELS, f"{place}: {name}"
            assert set(labels) <= OWN_LABELS[name] | TARGET_LABELS, f"{place}: {name} has no {labels}"
            seen += 1
        if ours and len(ours) == len(found["selectors"]):
            known = set.union(*(OWN_LABELS[name] for name, _ in ours)) | TARGET_LABELS
            assert set(found["groups"]) <= known, f"{place}: grouped by {found['groups']}"
    assert seen > 60


def _worker(name: str, *, paused: str = "", full: int = 0, other: int = 10, seconds: float = 1) -> dict[str, str]:
    """Series of one worker over ten minutes: why it is paused, batches a minute, seconds of calls a minute."""
    labels = f'namespace="rexstream",job="rexstream/rexstream-worker",instance="{name}"'
    reasons = {reason: int(reason == paused) for reason in ("backpressure", "outage", "flood")}
    return {
        f"rexstream_build_info{{{labels}}}": "1x10",
        **{f'rexstream_paused{{{labels},topic="t",reason="{reason}"}}': f"{is_}x10" for reason, is_ in reasons.items()},
        f'rexstream_batch_release_total{{{labels},reason="full"}}': f"0+{full}x10",
        f'rexstream_batch_release_total{{{labels},reason="idle"}}': f"0+{other}x10",
        f'rexstream_model_call_seconds_sum{{{labels},code="OK"}}': f"0+{seconds}x10",
    }


OTHER_JOB = 'namespace="other",job="other/rexstream-worker",instance="z"'
WELL = _worker("b") | _worker("c") | {f'rexstream_paused{{{OTHER_JOB},topic="t",reason="outage"}}': "1x10"}
UNKNOWN = {f"rexstream_build_info{{{OTHER_JOB}}}": "1x10"}


@pytest.mark.parametrize(
    ("trigger", "series", "value"),
    [
        pytest.param("worker 1", _worker("a") | WELL, 0, id="workers that are well do not hold"),
        pytest.param("worker 1", {}, 0, id="nor do none"),
        pytest.param("worker 1", _worker("a", paused="outage") | WELL, 0, id="nor does one of three that is paused"),
        pytest.param(
            "worker 1", _worker("a", paused="outage") | _worker("b", paused="flood"), 1, id="paused workers do"
        ),
        pytest.param("worker 1", _worker("a", paused="backpressure"), 0, id="those that only wait for work do not"),
        pytest.param("worker 1", _worker("a", full=60) | WELL, 1, id="full batches do"),
        pytest.param("worker 1", _worker("a", full=20) | WELL, 0, id="some of them do not"),
        pytest.param("worker 1", _worker("a", paused="outage", full=60), 1, id="both are no more than one"),
        pytest.param("worker 2", _worker("a") | WELL, 3, id="workers are counted"),
        pytest.param("worker 2", {}, 0, id="none too"),
        pytest.param("model 0", _worker("a", seconds=90) | _worker("b", seconds=180), 4.5, id="calls under way"),
        pytest.param("model 0", UNKNOWN, None, id="unknown without a worker"),
    ],
)
def test_triggers_say_what_the_formula_needs(
    packaged: Callable[..., str], tmp_path: Path, trigger: str, series: dict[str, str], value: float | None
) -> None:
    """The triggers' queries on given series, by promtool: 1 holds, and only where more workers would not help."""
    samples = [] if value is None else [{"labels": "{}", "value": value}]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": queries()[f"ScaledObject {trigger}"], "eval_time": "10m", "exp_samples": samples},
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [case]}))
    packaged("promtool", "test", "rules", str(tmp_path / "test.yaml"))


UNITS = {
    "short",
    "none",
    "s",
    "µs",
    "d",
    "ops",
    "reqps",
    "percent",
    "percentunit",
    "bytes",
    "mbytes",
    "watt",
    "celsius",
}
"""Grafana's own names: it shows one that it does not know without a unit. mbytes are MiB, which DCGM's memory is in."""

INDICATORS = {
    "QPS": ("service", "Reviews a second", r"rate\(rexstream_events_total"),
    "P50": ("service", "Latency, review to durable result", r"quantile\(0\.5,"),
    "P95": ("service", "Latency, review to durable result", r"quantile\(0\.95,"),
    "P99": ("service", "Latency, review to durable result", r"quantile\(0\.99,"),
    "error rate": ("service", "Error rate", r"dead_letter\|partial"),
    "GPU utilisation": ("gpu", "GPU utilisation", "DCGM_FI_DEV_GPU_UTIL"),
    "GPU memory": ("gpu", "GPU memory", "DCGM_FI_DEV_FB_USED"),
    "memory": ("service", "Memory of workers", "process_resident_memory_bytes"),
    "cost": ("service", "Cost of a review", "process_cpu_seconds_total"),
    "certificates": ("service", "Certificates", "rexstream_certificate_expiry_days"),
    "lanes": ("batching", "Tokens of each lane", "rexstream_lane_tokens_total"),
    "servers": ("model-server", "State of each server", "rexstream_endpoint_state"),
    "their speed": ("model-server", "Time of calls, by server", "rexstream_endpoint_slowness"),
    "their calls": ("model-server", "Windows in calls, by server", "rexstream_endpoint_in_flight"),
}
"""What the dashboards promise: file, panel, and what one of its queries has."""


@pytest.mark.parametrize("name", INDICATORS)
def test_every_indicator_is_on_a_dashboard(name: str) -> None:
    """Under its title."""
    file, title, part = INDICATORS[name]
    found = [query for place, query in queries().items() if place.startswith(f"{file}.json {title} ")]
    assert any(re.search(part, query) for query in found)


def test_dashboards_are_whole() -> None:
    """Panels lie beside each other in the grid; each says what it shows, and uses only variables that are defined."""
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text("utf-8"))
        variables = {each["name"] for each in dashboard["templating"]["list"]} | {"__rate_interval", "__range"}
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
            assert set(re.findall(r"\$\{?(\w+)", json.dumps(panel))) <= variables, panel["title"]
