"""``rexstream shadow switch``: what it refuses, each with the way out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click
import pytest

from consumer.cli.shadow_access import Shadow
from consumer.cli.shadow_switch import _refuse_unfinished
from consumer.delivery.shadow_plan import PlannedRange
from consumer.events import Partition

PLACE = Partition("out.shadow", 0)


def shadow(*, members: int = 0, done: int = 9, first: int = 0, switched: int = 0, **topics: int) -> Shadow:
    """Of nine records. ``topics``: how many are ``others`` than before, or ``held`` back."""
    group: Any = SimpleNamespace(
        group="g.shadow",
        members=lambda: members,
        committed=lambda _: {Partition("in", 0): done},
        partitions=lambda _: [PLACE],
        positions=lambda *_, **__: {PLACE: first},
        switched=lambda *_, **__: {PLACE: switched} if switched else {},
        replaced=lambda _, found: list(found)[: topics.get("others", 0)],
        held_back=lambda _: [PLACE][: topics.get("held", 0)],
    )
    return Shadow(group, {Partition("in", 0): PlannedRange(0, 9, {})}, {"out.shadow": "out"}, "dead.shadow")


@pytest.mark.parametrize(
    ("found", "words", "allowed"),
    [
        (shadow(members=2), "has 2 members", False),
        (shadow(held=1), "out.shadow-0 has a transaction that a process of the run left open", False),
        (shadow(done=4), "extracted 4 of 9 records: go on with its own 'rexstream shadow run'", True),
        (shadow(first=7), "out.shadow-0 lost its first results", True),
        (shadow(others=1), "'out.shadow' was deleted and created again", True),
        (shadow(first=7, switched=5), "out.shadow-0 lost its first results", True),
    ],
)
def test_a_run_that_has_not_all_its_results_is_refused(found: Shadow, words: str, allowed: bool) -> None:
    """Unless --incomplete says so; one that still writes always."""
    with pytest.raises(click.UsageError) as refused:
        _refuse_unfinished(found, incomplete=False)
    assert words in refused.value.message
    if allowed:
        _refuse_unfinished(found, incomplete=True)
    else:
        with pytest.raises(click.UsageError):
            _refuse_unfinished(found, incomplete=True)


def test_one_that_is_complete_is_not() -> None:
    """Nor one of which retention has deleted what was published already."""
    _refuse_unfinished(shadow(), incomplete=False)
    _refuse_unfinished(shadow(first=7, switched=7), incomplete=False)
