"""What ``rexstream status`` concludes from the workers' answers, and how it looks at several widths."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import StringIO
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.console import Group as Renderables

from consumer.cli.group_report import Report, report
from consumer.cli.group_tables import MOST_PROBLEMS, report_tables
from consumer.cli.group_workers import Reached, Target
from consumer.cli.worker_requests import Address
from consumer.events import Partition
from consumer.kafka.tools.group import Group, Member

SERVER = {"address": "10.1.0.1:8500", "state": "ok", "in_flight": 8, "reason": ""}


def member(number: int, *partitions: int) -> Member:
    host = f"10.0.0.{number}"
    return Member(
        f"id-{number}", "rexstream-http-9464", host, None, tuple(Partition("in", each) for each in partitions)
    )


def answer(number: int, *partitions: int, **other: Any) -> Reached:
    """A worker that is well, but for ``other``."""
    model = {"name": "rexuninlu", "version": "3", "endpoints": [SERVER], **other.pop("model", {})}
    status = {
        "service": "rexstream",
        "version": "0.1.0",
        "worker": f"worker-{number}",
        "state": "consuming",
        "ready": True,
        "assignment": [{"topic": "in", "partition": each, "lag": 7} for each in partitions],
        "rates": {"events_per_second": 10.0},
        "latency_ms": {"p95": 250.0},
        "model": model,
        **other,
    }
    target = Target(f"10.0.0.{number}:9464", Address(f"10.0.0.{number}", 9464), "", member(number, *partitions))
    return Reached(target, status)


def lost(number: int, *partitions: int) -> Reached:
    return Reached(Target(f"10.0.0.{number}:9464", None, "", member(number, *partitions)), None, "no answer in time")


def of(*workers: Reached, lags: dict[int, int | None] | None = None) -> Report:
    members = tuple(each.target.member for each in workers if each.target.member is not None)
    shown = {Partition("in", number): lag for number, lag in (lags or {}).items()}
    return report("reviews", Group("reviews", "STABLE", "CLASSIC", members), workers, shown)


def lines(found: Report, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    console.print(Renderables(*report_tables(found, width)))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_group_that_is_well_has_no_problem() -> None:
    """Backpressure comes and goes, so it is none; lag is the brokers', and where they tell none the worker's own."""
    pressed = {"paused": ["backpressure"], "paused_topics": {"backpressure": ["in"]}}
    found = of(answer(1, 0, 1, **pressed), answer(2, 2), lags={0: 100, 1: 200})
    assert found.well
    assert (found.lag, found.events_per_second, found.seconds_behind) == (307, 20.0, 15.3)
    assert [each.lag for each in found.workers] == [300, 7]
    assert found.topics["in"].unassigned == 0
    assert found.servers["10.1.0.1:8500"].states == {"ok": 2}


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        (lost(2, 1), "10.0.0.2:9464 (with in-1) was not reached: no answer in time"),
        (answer(2, 1, ready=False, state="draining", reasons=["draining"]), "worker-2 is not ready: draining"),
        (
            answer(2, 1, ready=False, reasons=["paused"], paused_topics={"flood": ["in"]}, waiting={"in": ["paused"]}),
            "worker-2 is not ready: paused",
        ),
        (answer(2, 1, paused_topics={"output": ["in"]}), "worker-2 does not consume in: paused: output"),
        (answer(2, 1, paused=["outage"]), "worker-2 does not consume everything: paused: outage"),
        (
            answer(2, 1, paused_topics={"flood": ["in"]}, waiting={"in": ["paused, too many"]}),
            "worker-2 does not consume in: paused, too many",
        ),
        (
            answer(2, 1, model={"endpoints": [{**SERVER, "state": "outage", "reason": "refused"}]}),
            "model server 10.1.0.1:8500: outage for 1 of 2 workers: refused",
        ),
        (answer(2, 1, model={"version": "4"}), "several models answer: rexuninlu:3, rexuninlu:4"),
        (
            answer(2, 1, model={"canary": {"share": 0.1, "fallback": "slow", "detail": "9 times as long"}}),
            "the canary fell back at 1 of 2 workers: slow: 9 times as long",
        ),
        (answer(2, 1, version="0.2.0"), "workers of several versions: 0.1.0, 0.2.0"),
    ],
)
def test_each_fault_is_one_sentence(worker: Reached, words: str) -> None:
    """With the worker, what it does not do, and why; a fault is told once."""
    found = of(answer(1, 0), worker, lags={0: 0, 1: 0})
    assert found.problems == [words]
    assert not found.well


def minute(version: str, results: int, empty: int) -> dict[str, Any]:
    return {
        "name": "rexuninlu",
        "version": version,
        "calls": 5,
        "failed_calls": 1,
        "results": results,
        "empty_results": empty,
        "extractions": 2 * results,
    }


def test_versions_that_share_a_workers_keys_are_shown_and_no_problem() -> None:
    """Which of two versions answered a worker last is chance, where it asks both; their numbers stand side by side."""
    both = {"versions": [minute("3", 90, 9), minute("4", 10, 4)]}
    found = of(answer(1, 0, model=both), answer(2, 1, model={**both, "version": "4"}), lags={0: 0, 1: 0})
    assert found.problems == []
    assert (found.versions["rexuninlu:4"].results, found.versions["rexuninlu:4"].workers) == (20, 2)
    shown = [line.split() for line in lines(found, 100)]
    assert ["rexuninlu:3", "2", "10", "2", "180", "10.0%", "2.00"] in shown
    assert ["rexuninlu:4", "2", "10", "2", "20", "40.0%", "2.00"] in shown
    apart = of(
        answer(1, 0, model={"versions": [minute("3", 90, 9)]}),
        answer(2, 1, model={"versions": [minute("4", 10, 4)], "version": "4"}),
        lags={0: 0, 1: 0},
    )
    assert apart.problems == ["several models answer: rexuninlu:3, rexuninlu:4"]


def test_partitions_that_nobody_has_or_knows_are_counted() -> None:
    """Without an owner nobody consumes them; without a lag nobody knows how much waits."""
    found = of(answer(1, 0), lags={0: None, 1: 5})
    assert found.problems == [
        "in: no member has 1 of its 2 partitions",
        "in: the lag of 1 of its 2 partitions is not known",
    ]
    assert (found.lag, found.topics["in"].unknown) == (5, 1)


def test_a_worker_of_another_version_may_say_less() -> None:
    """Whatever it leaves out is unknown, and nothing breaks."""
    target = Target("10.0.0.9:9464", Address("10.0.0.9", 9464))
    found = report("reviews", None, [Reached(target, {"service": "rexstream"})], {})
    assert found.problems == ["10.0.0.9:9464 is not ready: ?"]
    assert " named, " in lines(found, 80)[0]


def test_a_group_without_members_is_that_and_nothing_else() -> None:
    """Not a list of partitions without an owner as well."""
    group = Group("reviews", "EMPTY", "CONSUMER", ())
    found = report("reviews", group, [], {Partition("in", 0): 3}, "group 'reviews' has no members")
    assert found.problems == ["group 'reviews' has no members"]
    assert lines(found, 80)[0] == "group reviews: 0 members (KIP-848, empty), 0 reached"


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_it_fits_the_screen(width: int) -> None:
    """No line is longer, no worker is missing, and what is rare is there where there is room."""
    workers = [answer(each, each, worker=f"shop-reviews-worker-5d9f7c8b6d-{each:05}") for each in range(1, 101)]
    shown = lines(of(*workers, lost(200, 200), answer(201, 201, worker="商店-worker")), width)
    assert max(map(cell_len, shown)) <= width
    text = "\n".join(shown)
    assert text.count("consuming") == 101
    assert ("rexuninlu:3" in text) == (width >= 100)
    assert ("10.0.0.7:9464" in text) == (width >= 130)
    assert "商店" in text
    assert "not reached" in text


def test_of_many_problems_the_first_are_shown_and_the_rest_counted() -> None:
    """Above the tables where the screen ends."""
    found = of(*[lost(each, each) for each in range(1, MOST_PROBLEMS + 6)])
    assert "and 5 more, which --json has." in lines(found, 200)[-1]
    console = Console(file=StringIO(), width=200)
    console.print(Renderables(*report_tables(found, 200, problems_first=True)))
    assert isinstance(console.file, StringIO)
    first, _, last = console.file.getvalue().partition("Workers\n")
    assert "Not as it should be" in first
    assert "Not as it should be" not in last


def test_what_a_worker_says_moves_no_cursor() -> None:
    """Names and reasons are a worker's, and whatever answers may call itself one."""
    found = of(answer(1, 0, worker="\x1b[2Jworker", state="\x1b[2J", ready=False, reasons=["\x1b[2J"]))
    console = Console(file=StringIO(), width=100, force_terminal=False)
    console.print(Renderables(*report_tables(found, 100)))
    assert isinstance(console.file, StringIO)
    assert "\x1b" not in console.file.getvalue()


def test_it_is_json() -> None:
    """All of it."""
    assert json.loads(json.dumps(asdict(of(answer(1, 0), lost(2, 1)))))["unreached"][0]["partitions"] == [["in", 1]]


def test_a_canary_without_a_share_is_no_problem() -> None:
    """Nobody misses it; a worker without one says null."""
    absent = {"canary": {"share": 0.0, "fallback": "unavailable", "detail": "no such label"}}
    assert of(answer(1, 0, model=absent), answer(2, 1, model={"canary": None}), lags={0: 0, 1: 0}).well


def several(*ways: tuple[str, str, bool], share: float | None, fallback: str | None = None) -> dict[str, Any]:
    """``model`` of a worker with these ways to it: version, bundle, and whether it can be used."""
    return {
        "canary": None if share is None else {"share": share, "fallback": fallback, "detail": ""},
        "variants": [
            {"variant": name, "bundle": f"{bundle} (checkpoint 1, contract 2)", "usable": usable}
            for name, bundle, usable in ways
        ],
    }


def test_canaries_and_bundles_are_a_table_of_the_workers_that_have_some() -> None:
    """Share, reason of a fallback and bundle in use, at 80 columns; nothing where no worker has several ways."""
    one, two = "/models/rexuninlu/1/bundle", "/models/rexuninlu/2/bundle"
    found = of(
        answer(1, 0),
        answer(2, 1, model=several(("stable", one, True), ("canary", one, True), share=0.05)),
        answer(3, 2, model=several(("stable", one, True), ("canary", one, False), share=0.05, fallback="unavailable")),
        answer(4, 3, model=several(("stable", one, False), ("stable", two, True), share=None)),
        answer(5, 4, model=several(("stable", one, False), ("canary", one, False), share=0.0, fallback="unavailable")),
    )
    shown = lines(found, 80)
    assert max(map(cell_len, shown)) <= 80
    start = shown.index("Canary and bundles")
    table = [line.split(None, 3) for line in shown[start + 2 : shown.index("", start)]]
    assert [line[:3] for line in table if line[0].startswith("worker-")] == [
        ["worker-2", "0.05", "answers"],
        ["worker-3", "0.05", "unavailable"],
        ["worker-4", "-", "-"],
        ["worker-5", "0", "no"],
    ]
    text = " ".join("".join(line) for line in shown[start:])
    assert f"{one}; canary: none" in text
    assert two in text
    assert "none fits" in text
    assert "checkpoint" not in text
    assert json.loads(json.dumps(asdict(found)))["workers"][2]["variants"] == {
        "share": 0.05,
        "fallback": "unavailable",
        "stable": [one],
        "canary": [],
    }
    assert "Canary and bundles" not in lines(of(answer(1, 0)), 80)
