"""``rexstream check --connect`` and what the brokers allow."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from consumer.cli import kafka_findings
from consumer.cli.kafka_findings import _used_topics, group_finding, topic_findings, topic_rights
from consumer.config.loading import load_config

if TYPE_CHECKING:
    from consumer.cli.dependencies import Finding

READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
ALLOWED = {"reviews.raw": [READ, DESCRIBE], "reviews.extracted": [WRITE, DESCRIBE], "reviews.dead": [WRITE, DESCRIBE]}
Told = list[AclOperation] | int | None
"""Operations, an error's code, or the None of brokers that tell no operations."""


class Admin:
    """Tells of each topic and group what it was given."""

    def __init__(self, told: dict[str, Told]) -> None:
        self._told = told

    def describe_topics(self, topics: Any, **options: Any) -> dict[str, Future[Any]]:
        return self._answers(topics.topic_names, options)

    def describe_consumer_groups(self, groups: list[str], **options: Any) -> dict[str, Future[Any]]:
        return self._answers(groups, options)

    def _answers(self, names: list[str], options: dict[str, Any]) -> dict[str, Future[Any]]:
        assert options == {"include_authorized_operations": True, "request_timeout": 5.0}
        futures = {name: Future[Any]() for name in names}
        for name, future in futures.items():
            told = self._told[name]
            if isinstance(told, int):
                future.set_exception(KafkaException(KafkaError(told)))
            else:
                future.set_result(SimpleNamespace(authorized_operations=told))
        return futures


def of_topics(told: dict[str, Told], *settings: str) -> dict[str, Finding]:
    admin: Any = Admin(told)
    there: Any = {topic: SimpleNamespace(error=None, partitions={0: None, 1: None}) for topic in told}
    rights = topic_rights(admin, list(told))
    used = _used_topics(load_config(None, {}, settings), ("product_features", "sentiment", "ner"))
    return {f.subject: f for f in topic_findings(used, there, rights)}


def of_group(told: Told, *settings: str) -> Finding:
    admin: Any = Admin({"rexstream": told})
    finding = group_finding(load_config(None, {}, settings), admin)
    assert finding.subject == "group rexstream"
    return finding


def test_topics_that_may_be_used_are_well() -> None:
    """And the right that was looked for is named."""
    assert {subject: (f.status, f.detail) for subject, f in of_topics({**ALLOWED}).items()} == {
        "topic reviews.raw": ("ok", "input: 2 partition(s), may READ"),
        "topic reviews.extracted": ("ok", "results of product_features, inline: 2 partition(s), may WRITE"),
        "topic reviews.dead": ("ok", "dead letters: 2 partition(s), may WRITE"),
    }


@pytest.mark.parametrize(
    ("topic", "operations", "needed"),
    [
        ("reviews.raw", [WRITE, DESCRIBE], "READ"),
        ("reviews.extracted", [READ, DESCRIBE], "WRITE"),
        ("reviews.dead", [DESCRIBE], "WRITE"),
    ],
)
def test_a_topic_that_may_be_seen_and_not_used_fails(topic: str, operations: list[AclOperation], needed: str) -> None:
    """A worker would start there and do nothing; only that topic is reported."""
    found = of_topics({**ALLOWED, topic: operations})
    assert [f.subject for f in found.values() if f.status == "fail"] == [f"topic {topic}"]
    assert f"grant this client {needed} on it" in found[f"topic {topic}"].detail


TEMPLATE = ("routes.0.output=out.{task}", "routes.0.tasks=[ner]")


@pytest.mark.parametrize("told", [{"out.ner": [WRITE], "out": [DESCRIBE]}, {"out.ner": [WRITE]}])
def test_the_topic_of_inline_schemas_is_needed_where_they_are_taken(told: dict[str, Told]) -> None:
    """Any producer may send the event that brings one, and its result would hold up the worker."""
    found = of_topics({**ALLOWED, **told}, *TEMPLATE)
    assert (found["topic out.ner"].status, found["topic out"].status) == ("ok", "fail")
    assert "topic out" not in of_topics({**ALLOWED, **told}, *TEMPLATE, "routes.0.inline_schemas=false")
    assert "topic out" not in of_topics({**ALLOWED, **told}, *TEMPLATE, "routes.0.format=text")


def test_every_loaded_task_needs_its_topic_where_events_may_name_any() -> None:
    """The one that is missing says which key of which route can reach it."""
    told: dict[str, Told] = {**ALLOWED, "out.ner": [WRITE], "out": [WRITE], "out.sentiment": [WRITE]}
    found = of_topics(told, *TEMPLATE, "routes.0.event_tasks=any")
    assert {subject for subject, f in found.items() if f.status == "fail"} == {"topic out.product_features"}
    assert "routes.0.event_tasks" in found["topic out.product_features"].detail
    assert found["topic out.sentiment"].status == "ok"


@pytest.mark.parametrize("told", [None, [], KafkaError._TIMED_OUT])
def test_brokers_that_tell_no_rights_fail_nothing(told: Told) -> None:
    """Older than 2.3, or too slow: then only that the topics are there is known, and no more is said."""
    found = of_topics(dict.fromkeys(ALLOWED, told))
    assert {(f.status, f.detail) for f in found.values()} == {
        ("ok", f"{what}: 2 partition(s)") for what in ("input", "results of product_features, inline", "dead letters")
    }


def test_without_topics_nothing_is_asked() -> None:
    """The client takes no empty list."""
    admin: Any = Admin({})
    assert topic_rights(admin, []) == {}


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        ([READ, DESCRIBE], "ok", "may READ"),
        ([DESCRIBE], "fail", "grant this client READ on the group"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "fail", "grant this client READ on the group"),
        (None, "ok", "reports no rights"),
        ([], "ok", "reports no rights"),
        (KafkaError.COORDINATOR_NOT_AVAILABLE, "warn", "COORDINATOR_NOT_AVAILABLE"),
        (KafkaError._TIMED_OUT, "warn", "rights unknown"),
    ],
)
def test_the_group(told: Told, status: str, words: str) -> None:
    """Refused is told from not known."""
    finding = of_group(told)
    assert finding.status == status
    assert words in finding.detail
    assert "transactional" not in finding.detail


def test_transactional_ids_cannot_be_asked_about() -> None:
    """Which is said where there will be some."""
    assert "transactional ids rexstream-* is not checked" in of_group([READ], "delivery.mode=exactly_once").detail


def test_a_compacted_topic_is_fit_for_deletes_of_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several tasks write to it, or none forwards deletes, only the last result of a key stays."""

    def warned(*settings: str) -> set[str]:
        config = load_config(None, {}, ["routes.0.tasks=[ner, sentiment]", "routes.0.inline_schemas=false", *settings])
        found = kafka_findings.topic_setting_findings(config, (), Admin({}), {"reviews.dead"})  # type: ignore[arg-type]
        return {each.subject for each in found if "give each task a topic" in each.detail}

    compacted = {"cleanup.policy": "compact"}
    topics = ("reviews.extracted", "out.ner", "out.sentiment")
    monkeypatch.setattr(kafka_findings, "_topic_settings", lambda *_: dict.fromkeys(topics, compacted))
    forward = ("routes.0.on_delete=forward", "routes.0.output=out.{task}")
    assert warned() == warned(*forward[:1]) == {"topic reviews.extracted"}
    assert warned(*forward[1:]) == {"topic out.ner", "topic out.sentiment"}
    assert warned(*forward) == set()
