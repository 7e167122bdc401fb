"""What ``check`` says of ``kafka.start``."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.cli import kafka_start_findings
from consumer.cli.kafka_start_findings import start_offset_findings, start_setting_findings
from consumer.config.tree import Config, KafkaConfig
from consumer.delivery.start_offsets import Committed, StartOffset
from consumer.events import Partition

FIRST, SECOND = Partition("reviews", 0), Partition("reviews", 1)
NONE = Committed(None)


def config(start: str) -> Config:
    return Config(kafka=KafkaConfig(bootstrap_servers="127.0.0.1:1", group_id="g", start=start))


def test_the_default_is_not_mentioned() -> None:
    """Neither with nor without a connection: nothing is asked."""
    assert list(start_setting_findings(config("earliest"))) == []
    assert list(start_offset_findings(config("earliest"))) == []


@pytest.mark.parametrize(
    ("start", "status", "words"),
    [
        ("latest", "ok", "latest: where group g begins if it has no offsets"),
        ("2020-01-01T00:00:00Z", "ok", "2020-01-01T00:00:00Z: where group g begins"),
        ("9000-01-01T00:00:00Z", "warn", "is yet to come: if group g is new, it begins at the end then"),
    ],
)
def test_what_the_setting_means(start: str, status: str, words: str) -> None:
    """A time that is yet to come is probably a slip of the year."""
    (finding,) = start_setting_findings(config(start))
    assert (finding.subject, finding.status) == ("kafka.start", status)
    assert words in finding.detail


class Lookup:
    committed_now: Any
    others: frozenset[str] = frozenset()

    def __init__(self, *_: object) -> None: ...

    def committed(self) -> dict[Partition, Committed]:
        if isinstance(self.committed_now, Exception):
            raise self.committed_now
        found: dict[Partition, Committed] = self.committed_now
        return found

    def other_topics(self) -> frozenset[str]:
        return self.others

    def offsets(self, partitions: Any) -> dict[Partition, StartOffset]:
        return {partition: StartOffset(7, "because") for partition in sorted(partitions)}


@pytest.mark.parametrize(
    ("committed", "status", "detail"),
    [
        ({}, "warn", "group g waits until an input topic is there, to begin"),
        (
            {FIRST: NONE, SECOND: NONE},
            "ok",
            "group g has no offsets; would begin now: reviews-0 at 7 (because), reviews-1 at 7 (because)",
        ),
        ({FIRST: Committed(3), SECOND: NONE}, "ok", "is not used: group g has offsets"),
        (
            KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)),
            "warn",
            "unknown where group g begins: Broker: Group authorization failed; check again",
        ),
        (ValueError("cannot look up times"), "fail", "cannot look up times"),
    ],
)
def test_where_the_group_would_begin(committed: Any, status: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at, and not begun: nothing is joined or committed."""
    monkeypatch.setattr(Lookup, "committed_now", committed, raising=False)
    monkeypatch.setattr(kafka_start_findings, "StartLookup", Lookup)
    (finding,) = start_offset_findings(config("latest"))
    assert (finding.subject, finding.status, finding.detail) == ("kafka.start", status, detail)


def test_offsets_of_a_topic_that_is_no_input_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is not new, although it has none of its inputs."""
    monkeypatch.setattr(Lookup, "committed_now", {FIRST: NONE}, raising=False)
    monkeypatch.setattr(Lookup, "others", frozenset({"old"}))
    monkeypatch.setattr(kafka_start_findings, "StartLookup", Lookup)
    (finding,) = start_offset_findings(config("latest"))
    assert (finding.status, finding.detail) == ("ok", "is not used: group g has offsets of old, which is no input")
