"""Which input a topic belongs to, and what is kept for each input."""

from __future__ import annotations

import pytest

from consumer.config.inputs import MOST_TOPICS, ByInput, InputOf, Inputs, subscriptions

SHOPS, ANY = r"^shop\..*\.reviews$", r"^[a-z].*\.reviews$"
INPUTS = (SHOPS, "shop.own.reviews", ANY, "plain")


def test_a_name_wins_over_patterns_and_the_first_pattern_over_the_next() -> None:
    """In whatever order names and patterns stand."""
    inputs = Inputs(INPUTS)
    topics = ("shop.a.reviews", "shop.own.reviews", "my.reviews", "plain", "shop.a.reviews.old", "other")
    assert [inputs.find(topic) for topic in topics] == [SHOPS, "shop.own.reviews", ANY, "plain", None, None]
    assert [topic in inputs for topic in topics] == [True, True, True, True, False, False]
    assert inputs.all_of("shop.a.reviews") == [SHOPS, ANY]
    assert InputOf(INPUTS)["other"] == "other"
    assert subscriptions(INPUTS) == [r"^(shop\..*\.reviews)$", "shop.own.reviews", r"^([a-z].*\.reviews)$", "plain"]


def test_topics_of_a_pattern_share_its_value() -> None:
    """It is looked for once; what nobody reads has none."""
    values = ByInput(INPUTS, lambda _: [0])
    values["shop.a.reviews"][0] += 1
    values["shop.b.reviews"][0] += 1
    assert {name: value[0] for name, value in values.of.items()} == {
        SHOPS: 2,
        "shop.own.reviews": 0,
        ANY: 0,
        "plain": 0,
    }
    values.inputs.find = lambda _: pytest.fail("looked for again")  # type: ignore[method-assign, assignment]
    assert values["shop.b.reviews"] is values[SHOPS]
    with pytest.raises(BaseException, match="looked for again"):
        values["shop.c.reviews"]
    with pytest.raises(KeyError):
        ByInput(INPUTS, str)["other"]


def test_topics_that_come_and_go_for_ever_take_no_more_memory() -> None:
    """Nor do they take a value away."""
    values = ByInput(INPUTS, lambda _: object())
    for number in range(2 * MOST_TOPICS + 5):
        assert values[f"shop.{number}.reviews"] is values.of[SHOPS]
        assert values["plain"] is values.of["plain"]
    assert len(values) <= MOST_TOPICS + len(INPUTS)
