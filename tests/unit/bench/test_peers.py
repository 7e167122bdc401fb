"""What the comparison with peers says of canned figures, and what it gives them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from bench.peers.contenders import ENGINE, PEERS, PIPELINES, QUICK
from bench.peers.measures import Audit, Latency, Throughput, rate
from bench.peers.pipelines.extraction import Batches
from bench.peers.reviews import LONGEST, events
from bench.peers.section import Figures, section


def figures(instant: list[float], bound: list[float], duplicates: int = 0, memory: float = 100.0) -> Figures:
    one = Figures()
    one.instant = [Throughput(rate, 500 / rate) for rate in instant]
    one.bound = [Throughput(rate, 1.0) for rate in bound]
    one.latency, one.audit, one.memory = Latency(20, 90), Audit(duplicates, 0), {1000: memory}
    return one


def test_the_ratios_are_those_of_runs_of_one_round() -> None:
    found = {"worker": figures([100, 50, 80], [10, 10, 10]), "loop": figures([50, 50, 160], [5, 10, 20])}
    (row,) = section(found, "worker", 60.0, [])["rows"]
    assert row == ["loop", 1.0, "0.50 to 2.00", 1.0, "0.50 to 2.00", 1.0, "0.50 to 2.00"]


def test_a_goal_is_judged_against_the_best_of_the_others() -> None:
    found = {
        "worker": figures([100], [10], duplicates=3, memory=120),
        "loop": figures([104], [10], duplicates=7, memory=80),
        "slow": figures([20], [2], duplicates=9, memory=200),
    }
    goals = {goal["goal"].partition(":")[0]: goal for goal in section(found, "worker", 60.0, [])["goals"]}
    assert {name: goal["met"] for name, goal in goals.items()} == {
        "model is the bottleneck": False,  # equal is not ahead
        "instant model": True,  # 0.96 is a tie
        "least memory at a lag of 1,000": False,
        "fewest duplicates after SIGKILL": True,
        "nothing lost after SIGKILL": True,
    }
    assert "against loop" in goals["instant model"]["found"]


def test_a_contender_that_failed_is_named_and_the_others_are_reported() -> None:
    absent = Figures()
    absent.error = "not installed: no such version"
    report = section({"worker": figures([1], [1]), "loop": figures([1], [1]), "gone": absent}, "worker", None, [])
    assert [row[0] for row in report["rows"]] == ["loop"]
    assert report["tables"][-1]["rows"] == [["gone", "not installed: no such version"]]
    widths = [(len(table["columns"]), {len(row) for row in table["rows"]}) for table in (report, *report["tables"])]
    assert all(rows == {columns} for columns, rows in widths)
    for plot in report["plots"]:
        assert all(len(series["y"]) == len(plot["x"]) for series in plot["series"])


def test_results_that_come_in_batches_count_as_fast_as_the_batches_come() -> None:
    assert rate([0, 10, 20, 30]) == pytest.approx(100)
    assert rate([0] * 256 + [1000] * 256 + [2000] * 256) == pytest.approx(256)


def test_without_a_worker_there_is_no_goal_to_judge() -> None:
    absent = Figures()
    absent.error = "it ended"
    assert section({"worker": absent, "loop": figures([1], [1])}, "worker", None, [])["goals"] == []


def test_every_peer_has_a_pipeline_and_pinned_requirements() -> None:
    assert set(QUICK) <= {peer.name for peer in PEERS}
    for peer in {one.peer for one in PEERS}:
        assert (PIPELINES / f"with_{peer}.py").is_file()
        lines = (PIPELINES / f"requirements/{peer}.txt").read_text().splitlines()
        assert lines[0] == f"-r {ENGINE.name}"
        assert all(re.fullmatch(r"[A-Za-z0-9_\-]+(\[\w+\])?==[\w.]+", line) for line in lines[1:])


def test_all_contenders_get_the_same_reviews_of_mixed_lengths() -> None:
    once, again = list(events(400)), list(events(400))
    assert once == again
    lengths = sorted(len(json.loads(value)["text"]) for _, value in once)
    assert lengths[-1] <= LONGEST
    assert lengths[200] < 60 < 90 < lengths[360] < lengths[-1]
    assert [json.loads(value)["event_id"] for _, value in once] == [key for key, _ in once]


def test_records_that_come_one_at_a_time_share_a_batch_and_its_failure() -> None:
    sizes = []

    def extract(values: list[Any]) -> list[Any]:
        sizes.append(len(values))
        if 13 in values:
            raise ValueError("13")
        return [2 * value for value in values]

    async def main() -> list[Any]:
        batches = Batches(4, extract)
        return await asyncio.gather(*(batches.extract(value) for value in range(8)))

    assert asyncio.run(main()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sizes == [4, 4]

    async def fails() -> None:
        batches = Batches(1, extract)
        with pytest.raises(ValueError, match="13"):
            await batches.extract(13)

    asyncio.run(fails())
