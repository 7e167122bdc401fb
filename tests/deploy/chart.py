"""The Helm chart as Helm renders it, and every query that is asked of Prometheus."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from deploy.tools import KUBERNETES, tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "rexstream"
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
PLAIN = ROOT / "deploy" / "kubernetes" / "rexstream.yaml"
PLAIN_VALUES = "monitoring: {dashboards: false}"
"""What PLAIN is rendered with: dashboards are files beside it."""

ROUTE = "{input: reviews.raw, tasks: [sentiment], output: reviews.extracted}"
VARIANTS = {
    "default": "",
    "cpu": "modelServer: {accelerator: cpu}",
    "static members": "worker: {kind: StatefulSet, replicas: 12}",
    "without operators": "{autoscaling: {enabled: false}, monitoring: {enabled: false, dashboards: false}}",
    "own model servers": "{modelServer: {enabled: false}, config: {model: {target: 'serving.example:8500'}}}",
    "secrets and rights": "{worker: {secret: login}, topics: {secret: admin, principal: 'User:rexstream'},"
    " autoscaling: {worker: {authentication: login, kafka: {tls: enable}}}}",
    "digests": "{worker: {image: {digest: D}}, modelServer: {images: {gpu: {digest: D}, cpu: {digest: D}}},"
    " topics: {image: {digest: D}}}".replace("D", f"'sha256:{'0' * 64}'"),
    "traces": "{worker: {kind: StatefulSet, env: [{name: OTEL_SERVICE_NAME, value: reviews}]},"
    " config: {observability: {tracing: {endpoint: 'http://otel-collector.monitoring:4317/'}}}}",
    "two topics": f"config: {{routes: [{ROUTE}, {{input: shop.reviews, tasks: [ner],"
    " output: 'shop.facts.{task}'}]}",
}
"""Values for which everything is checked, as YAML."""


@cache
def render(values: str = "") -> str:
    """What `helm template` prints. Raises CalledProcessError where Helm refuses the values."""
    command = [tool("helm"), "template", "rexstream", str(CHART), "--namespace", "rexstream"]
    command += ["--kube-version", KUBERNETES, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, check=True, timeout=60).stdout


def objects(values: str = "") -> dict[tuple[str, str], dict[str, Any]]:
    """The rendered manifests by kind and name without the release's."""
    found = [each for each in yaml.safe_load_all(render(values)) if each]
    return {(each["kind"], each["metadata"]["name"].removeprefix("rexstream-")): each for each in found}


@cache
def queries() -> dict[str, str]:
    """Every PromQL expression of dashboards, alerts and triggers, by where it stands."""
    found = {}
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
                found[f"{path.name} {panel['title']} {target['refId']}"] = query
    for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]:
        found |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    for (kind, name), each in objects().items():
        for number, trigger in enumerate(each["spec"]["triggers"] if kind == "ScaledObject" else ()):
            if "query" in trigger["metadata"]:
                found[f"ScaledObject {name} {number}"] = trigger["metadata"]["query"]
    return found
