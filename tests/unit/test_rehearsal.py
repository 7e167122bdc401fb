"""What a rehearsal judges by: the shipped files with other addresses and a faster clock, and alerts that are right."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import yaml
from deploy.chart import ALERTS
from rehearsal.act import COMPOSE, configuration
from rehearsal.figures import Fired, fired
from rehearsal.report import Measured, alert_table, why
from rehearsal.rules import hurried
from rehearsal.step import Promise, Span, Step

if TYPE_CHECKING:
    from deploy.prometheus_server import Prometheus
    from rehearsal.act import Act

ADDRESSES = {"brokers": "b:1", "registry": "http://r:2", "model": "m:3", "bundle": "/bundle"}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    return {place: each for key, below in items for place, each in _flat(below, f"{path}.{key}").items()}


def test_workers_have_the_configuration_of_compose_but_for_addresses() -> None:
    """And a second route that differs from the first in what it reads."""
    shipped, ours = (
        _flat(yaml.safe_load(COMPOSE.read_text("utf-8"))),
        _flat(configuration("at_least_once", **ADDRESSES)),
    )
    changed = {place for place in shipped if ours[place] != shipped[place]}
    assert changed == {
        ".kafka.bootstrap_servers",
        ".kafka.registry.url",
        ".model.target",
        ".model.bundle",
        ".observability.http",
    }
    assert all(place.startswith(".routes.1.") for place in ours.keys() - shipped.keys())


def test_another_mode_has_names_of_its_own() -> None:
    """Both run on the same brokers, one after the other."""
    one, other = (configuration(mode, **ADDRESSES) for mode in ("at_least_once", "exactly_once"))
    assert other["delivery"]["mode"] == "exactly_once"
    names = [
        {*(route[key] for route in each["routes"] for key in ("input", "output")), each["kafka"]["group_id"]}
        | {each["delivery"]["dead_letter_topic"]}
        for each in (one, other)
    ]
    assert not names[0] & names[1]


def test_the_fast_clock_has_a_second_for_each_minute() -> None:
    """In every range, offset and ``for``; no alert is left out, and each says which clock it is on."""
    shipped = [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]
    fast = [rule for group in yaml.safe_load(hurried(ALERTS.read_text("utf-8")))["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in fast] == [rule["alert"] for rule in shipped]
    assert {rule["labels"]["clock"] for rule in fast} == {"fast"}
    duration = re.compile(r"\[(\d+)([smh])\]|offset (\d+)([smh])")
    for slow, quick in zip(shipped, fast, strict=True):
        for before, after in zip(duration.findall(slow["expr"]), duration.findall(quick["expr"]), strict=True):
            assert _seconds("".join(after)) * 60 == _seconds("".join(before))
        assert _seconds(quick.get("for", "0s")) * 60 == _seconds(slow.get("for", "0s"))
    assert "> 30 *" in next(rule["expr"] for rule in fast if rule["alert"] == "RexstreamLagGrows")


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def test_an_alert_that_comes_back_within_three_seconds_did_not_go() -> None:
    """One that stays away for longer fires a second time; what it is about are its own labels."""
    labels = {
        "alertname": "Paused",
        "alertstate": "firing",
        "job": "w",
        "severity": "critical",
        "topic": "t",
        "clock": "fast",
    }
    values = [[at, "1"] for at in (10, 11, 14, 20)]
    prometheus = SimpleNamespace(get=lambda *_, **__: {"result": [{"metric": labels, "values": values}]})
    assert fired(cast("Prometheus", prometheus), Span(0.0, 30.0)) == [
        Fired("Paused", True, "topic t", Span(10.0, 14.0)),
        Fired("Paused", True, "topic t", Span(20.0, 20.0)),
    ]


def test_an_alert_is_right_where_its_step_says_so_and_on_its_clock() -> None:
    """One that must fire and does not is a broken promise, as is one that fires on the real clock."""
    step = Step("broker", "away", frozenset({"Paused", "Stuck"}), {"Slow": "reviews waited"})
    step.promises = [Promise(True, "all is well"), Promise(False, "it is not")]
    span = Span(1.0, 2.0)
    seen = [Fired(*each, "", span) for each in (("Paused", True), ("Slow", True), ("Defect", True), ("Slow", False))]
    alerts = [(alert, step, why(alert, step)) for alert in seen]
    assert [reason for _, _, reason in alerts] == ["it must", "reviews waited", None, None]
    assert why(seen[0], None) is None
    act = SimpleNamespace(mode="exactly_once", steps=[step])
    measured = Measured(cast("Act", act), [], alerts)
    assert measured.broken() == [
        "exactly_once: broker: it is not",
        "exactly_once: broker: Defect fired, which it should not (fast)",
        "exactly_once: broker: Slow fired, which it should not (shipped)",
        "exactly_once: broker: Stuck did not fire",
    ]
    assert sum("**no**" in line for line in alert_table(measured)) == 2
