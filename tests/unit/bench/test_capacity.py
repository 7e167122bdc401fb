"""docs/capacity.md, and the arithmetic behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from bench import capacity
from bench.planning.page import page
from bench.planning.plan import BUSY, SPARE, assumed_accelerator, plan, rate_of, recorded

if TYPE_CHECKING:
    from bench.planning.plan import Plan, ServerKind


@pytest.fixture(scope="module")
def plans() -> dict[ServerKind, list[Plan]]:
    return capacity.plans()


def test_the_document_is_what_the_command_computes(plans: dict[ServerKind, list[Plan]]) -> None:
    text = capacity.DOCUMENT.read_text("utf-8")
    assert text == page(text, recorded(), plans), "run: python tests/bench/capacity.py --write"


def test_servers_are_as_few_as_may_be(plans: dict[ServerKind, list[Plan]]) -> None:
    """Without the spare one they are busy for ``BUSY`` of the peak at most; one less would be busier."""
    for kind, rows in plans.items():
        for row in rows:
            needed = row.peak / rate_of(kind, recorded())
            assert needed / (row.servers - SPARE) <= BUSY
            assert row.servers - SPARE == 1 or needed / (row.servers - SPARE - 1) > BUSY


def test_workers_follow_the_cpu_of_a_review(plans: dict[ServerKind, list[Plan]]) -> None:
    kind = assumed_accelerator()
    twice = plan(kind, recorded()._replace(cpu_ms={kind.name: 2 * recorded().cpu_ms[kind.name]}), 50)
    once = plans[kind][-1]
    assert 2 * (once.workers - SPARE) - 1 <= twice.workers - SPARE <= 2 * (once.workers - SPARE)


def test_a_server_of_half_the_speed_makes_reviews_wait_longer() -> None:
    kind = assumed_accelerator()
    cost = kind.cost
    slow = replace(kind, cost=replace(cost, fixed=2 * cost.fixed, per_token=2 * cost.per_token))
    assert plan(slow, recorded(), 5).p99 > plan(kind, recorded(), 5).p99


def test_a_document_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="computed: plans"):
        page("# Capacity\n", recorded(), {})
