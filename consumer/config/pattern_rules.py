"""Rules for inputs that are patterns: none may match what this worker, or Kafka itself, writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.config.names import marker_topic, result_topics
from consumer.config.topic_patterns import PatternRefused, TopicPattern, is_pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from consumer.config.problems import Check
    from consumer.config.tree import Config

REFRESH = "topic.metadata.refresh.interval.ms"
"""librdkafka's setting for how often it looks for new topics. ``kafka.clients.settings`` has ours."""

_INTERNAL = "__"
"""What the names of Kafka's own topics begin with, and of those that tools keep for themselves."""


def pattern_checks(config: Config, known: Collection[str]) -> Iterator[Check]:
    """Every pattern's faults. ``known``: the tasks that are loaded."""
    letters = config.delivery.dead_letter_topic
    written = {
        **{topic: "results" for route in config.routes for topic in result_topics(route, known)},
        letters: "dead letters",
        marker_topic(letters): "markers of replays",
    }
    for index, route in enumerate(config.routes):
        if not is_pattern(route.input):
            continue
        path = ("routes", index, "input")
        try:
            pattern = TopicPattern(route.input)
        except PatternRefused as refused:
            yield True, path, refused.what, refused.fix
            continue
        yield (
            pattern.may_begin_with(_INTERNAL),
            path,
            f"{route.input} also matches names that begin with {_INTERNAL}, as Kafka's own topics do",
            f"begin it with a letter, or with [^_], as in ^[^_]{route.input[1:]}",
        )
        own = [f"{topic} ({what})" for topic, what in written.items() if pattern.matches(topic)]
        yield (
            bool(own),
            path,
            f"{route.input} also matches what this worker writes, which would be read again for ever: {', '.join(own)}",
            "let it match less, or rename those topics",
        )
    refresh = str(config.kafka.client.get(REFRESH, 1)).strip()
    yield (
        any(is_pattern(route.input) for route in config.routes) and refresh.lstrip("+-").isdigit() and int(refresh) < 1,
        ("kafka", "client", REFRESH),
        "turns off that new topics are found, and an input is a pattern",
        "remove it: Rexstream sets 10000",
    )
