"""Configurations with patterns that would read what they write, or what is Kafka's own."""

from __future__ import annotations

import pytest

from consumer.config.loading import load_config
from consumer.config.problems import ConfigError

SHOPS = r"routes.0.input=^shop\..*\.reviews$"


@pytest.mark.parametrize(
    "settings",
    [
        [SHOPS],
        [SHOPS, "routes.1.input=shop.own.reviews", "routes.1.tasks=[ner]"],
        # No task of the route gives this topic.
        [r"routes.0.input=^out\.event$", "routes.0.output=out.{task}"],
        [r"routes.0.input=^[^_].*\.in$", "routes.1.input=^shop.*$", "routes.1.tasks=[ner]"],
        [SHOPS, "kafka.client={topic.metadata.refresh.interval.ms: 1000}"],
    ],
)
def test_patterns_that_match_nothing_that_is_written_are_taken(settings: list[str]) -> None:
    """Two patterns may match the same topics: the order of the routes decides."""
    load_config(None, {}, settings)


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ([r"routes.0.input=^shop\."], "routes.0.input", "whole names"),
        (["routes.0.input=^.*$"], "routes.0.input", "Kafka's own"),
        (["routes.0.input=^.*s$"], "routes.0.input", "^[^_].*s$"),
        ([r"routes.0.input=^reviews\..*$"], "routes.0.input", "reviews.extracted (results)"),
        (
            [r"routes.0.input=^reviews\.d.*$"],
            "routes.0.input",
            "reviews.dead (dead letters), reviews.dead.replayed (markers",
        ),
        ([r"routes.0.input=^.*\.replayed$"], "routes.0.input", "for ever: reviews.dead.replayed (markers"),
        (
            [r"routes.0.input=^out\.(ner|x)$", "routes.0.output=out.{task}", "routes.0.tasks=[ner]"],
            "routes.0.input",
            "out.ner",
        ),
        (
            [r"routes.0.input=^out\.event$", "routes.0.output=out.{task}", "routes.0.event_tasks=any"],
            "routes.0.input",
            "out.event",
        ),
        ([r"routes.0.input=^out[^.]?$", "routes.0.output=out.{task}"], "routes.0.input", ": out (results)"),
        # What one route writes another one must not read.
        (
            [SHOPS, "routes.1.input=b", "routes.1.tasks=[ner]", "routes.1.output=shop.x.reviews"],
            "routes.0.input",
            "shop.x",
        ),
        ([SHOPS, r"routes.1.input=^shop\..*\.reviews$", "routes.1.tasks=[ner]"], "routes.1.input", "already the input"),
        (
            [SHOPS, "kafka.client={topic.metadata.refresh.interval.ms: -1}"],
            "kafka.client.topic.metadata.refresh.interval.ms",
            "new topics",
        ),
    ],
)
def test_patterns_that_would_read_what_is_written_are_refused(settings: list[str], key: str, words: str) -> None:
    """Read again for ever, each result a review of its own."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {}, settings)
    problems = [f"{problem.what}; {problem.fix}" for problem in caught.value.problems if problem.key == key]
    assert words in " and ".join(problems)
