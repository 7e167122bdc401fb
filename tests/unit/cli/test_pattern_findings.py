"""``rexstream check`` of inputs that are patterns: which topics they match now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from consumer.cli.kafka_findings import reachable_topics
from consumer.cli.pattern_findings import matched_topics, pattern_findings
from consumer.config.loading import load_config

SHOPS, ANY = r"^shop\..*$", r"^[a-z].*\.reviews$"
OUTPUTS = {"reviews.extracted": SHOPS, "reviews.dead": SHOPS}


def found(
    partitions: dict[str, int], rights: dict[str, frozenset[str]] | None = None, *settings: str
) -> list[tuple[str, str, str]]:
    config = load_config(None, {}, (f"routes.0.input={SHOPS}", *settings))
    topics: Any = {
        topic: SimpleNamespace(error=None, partitions=dict.fromkeys(range(count)))
        for topic, count in {"reviews.extracted": 2, "reviews.dead": 2, **partitions}.items()
    }
    return list(pattern_findings(config, matched_topics(config, topics), OUTPUTS, topics, rights or {}))


def test_the_topics_that_match_are_named_and_none_is_a_warning() -> None:
    """Thousands make no longer line than ten."""
    ((subject, status, detail),) = found({"shop.b": 2, "shop.a": 2, "my.shop.a": 1})
    assert (subject, status, detail) == (f"topics {SHOPS}", "ok", "input: 2 topic(s): shop.a, shop.b")
    ((_, status, detail),) = found({"other": 2})
    assert status == "warn"
    assert "DESCRIBE" in detail
    ((_, status, detail),) = found({f"shop.{number}": 2 for number in range(3000)})
    assert detail.endswith("and 2990 more")


def test_a_topic_that_may_not_be_read_fails() -> None:
    """The worker would be given its partitions and read nothing of them."""
    ((_, status, detail),) = found({"shop.a": 2, "shop.b": 2}, {"shop.a": frozenset({"DESCRIBE"})})
    assert status == "fail"
    assert "READ 1 topic(s): shop.a;" in detail


def test_other_partition_counts_and_two_patterns_are_warnings() -> None:
    """Each once, however many topics."""
    second = (f"routes.1.input={ANY}", "routes.1.tasks=[ner]", "routes.1.output=out")
    lines = found({"shop.a.reviews": 3, "shop.b": 2}, None, *second)
    assert [status for _, status, _ in lines] == ["ok", "warn", "warn", "warn", "warn"]
    assert "2 partitions, which differs from 1 topic(s): shop.a.reviews" in lines[1][2]
    assert "no topic matches" in lines[3][2]
    assert "match 1 topic(s): shop.a.reviews; the first" in lines[4][2]


def test_without_a_network_the_pattern_is_listed() -> None:
    """As no topic that must be there."""
    config = load_config(None, {}, (f"routes.0.input={SHOPS}",))
    (line,) = [each for each in reachable_topics(config, ()) if SHOPS in each.subject]
    assert (line.subject, line.status) == (f"topics {SHOPS}", "ok")
    assert "must be there" not in line.detail
