"""The marker topic on clusters that grant a client little, or do not answer."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.delivery.letters import Letter, Markers
from consumer.events import SourceRecord
from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable
from consumer.kafka.tools import replay_markers
from consumer.kafka.tools.replay_markers import (
    ensure_marker_topic,
    marker_value,
    older_releases_value,
    read_markers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPACT = {"cleanup.policy": "compact"}


@dataclass
class Entry:
    value: str | None


@dataclass
class StubAdmin:
    """A cluster; ``creation`` and ``description`` are its answers."""

    partitions: list[int] = field(default_factory=list)
    creation: Exception | None = None
    description: Exception | dict[str, str] = field(default_factory=lambda: COMPACT)
    created: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def create_topics(self, new: list[Any], **_: float) -> dict[str, Future[None]]:
        self.created.append((new[0].topic, new[0].config))
        return {new[0].topic: answered(self.creation)}

    def describe_configs(self, resources: list[Any], **_: float) -> dict[Any, Future[Any]]:
        if isinstance(self.description, Exception):
            return {resources[0]: answered(self.description)}
        return {resources[0]: answered({name: Entry(value) for name, value in self.description.items()})}


def answered(what: Any) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(what, Exception):
        future.set_exception(what)
    else:
        future.set_result(what)
    return future


def refused(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


class StubReader:
    admin: StubAdmin

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> StubReader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def partitions(self, topic: str) -> list[int]:
        assert topic == "dead.replayed"
        return self.admin.partitions


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> StubAdmin:
    it = StubAdmin()
    monkeypatch.setattr(StubReader, "admin", it, raising=False)
    monkeypatch.setattr(replay_markers, "Reader", StubReader)
    monkeypatch.setattr(replay_markers, "AdminClient", lambda _: it)
    return it


def ensure() -> None:
    ensure_marker_topic("host:1", "dead", client={}, timeout=5.0)


def test_a_missing_topic_is_created_compacted(admin: StubAdmin) -> None:
    """So no marker goes before its letter."""
    ensure()
    assert admin.created == [("dead.replayed", COMPACT)]


def test_one_that_is_there_needs_no_right_to_create_it(admin: StubAdmin) -> None:
    """Whoever may not create made it by hand."""
    admin.partitions, admin.creation = [0], refused(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    ensure()
    assert admin.created == []


@pytest.mark.parametrize("created_meanwhile", [False, True])
def test_one_that_is_there_must_be_compacted(admin: StubAdmin, created_meanwhile: bool) -> None:
    """Also one that somebody else created first."""
    admin.description = {"cleanup.policy": "delete"}
    if created_meanwhile:
        admin.creation = refused(KafkaError.TOPIC_ALREADY_EXISTS)
    else:
        admin.partitions = [0]
    with pytest.raises(TopicUnusable, match=r"set cleanup\.policy=compact"):
        ensure()


def test_settings_that_may_not_be_seen_are_believed(admin: StubAdmin) -> None:
    """It may be written to all the same."""
    admin.partitions, admin.description = [0], refused(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    ensure()


def test_one_that_is_missing_and_forbidden_says_what_to_do(admin: StubAdmin) -> None:
    """Create it, or grant the right."""
    admin.creation = refused(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(TopicUnusable, match="grant this client CREATE"):
        ensure()


@pytest.mark.parametrize(
    "silence", [FutureTimeoutError(), refused(KafkaError._TIMED_OUT), refused(KafkaError.REQUEST_TIMED_OUT)]
)
@pytest.mark.parametrize("there", [False, True])
def test_no_answer_is_an_outage(admin: StubAdmin, silence: Exception, there: bool) -> None:
    """Whether the client's own limit or the wait for it ends first."""
    admin.partitions, admin.creation, admin.description = [0] * there, silence, silence
    with pytest.raises(ClusterUnreachable, match="within 5 s"):
        ensure()


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b"7", b'{"place": "a-0-1"}', b'{"place": "a-0-1", "count": Infinity}', b"[" * 100_000, b"\xff"],
)
def test_a_forged_marker_ends_no_command(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    """The topic is compacted, so it would end every later one."""
    found = read(monkeypatch, {b"id": value})
    assert (found.at_ms, found.counts) == ({"id": 5}, {})


def test_markers_of_every_release_so_far_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones that name no group, those without a format, and today's, without what it writes for older releases."""
    values = {
        b"a": b"",
        b"b@group": b'{"place": "raw-0-1", "count": 2}',
        b"c@group": marker_value("raw-0-2", 1),
        b"c": older_releases_value("c@group"),
    }
    found = read(monkeypatch, values)
    assert found.at_ms == {"a": 5, "b@group": 5, "c@group": 5}
    assert found.counts == {"raw-0-1": 2, "raw-0-2": 1}


def test_a_letter_of_another_group_is_not_replayed_by_what_is_written_for_older_releases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the same id, since both groups read one topic."""
    found = read(monkeypatch, {b"c@one": marker_value("raw-0-2", 1), b"c": older_releases_value("c@one")})
    assert [found.replayed_at(letter("c", group)) for group in ("one", "another")] == [5, None]


def test_markers_of_a_newer_release_end_the_command_and_say_which_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they mean is not known, so their letters could be replayed twice."""
    with pytest.raises(
        TopicUnusable, match=r"'dead.replayed' has markers of format 2 .*offset 7 of partition 0.* newer"
    ):
        read(monkeypatch, {b"a@group": marker_value("raw-0-1", 1), b"b": b'{"format": 2}'})


def read(monkeypatch: pytest.MonkeyPatch, values: Mapping[bytes, bytes]) -> Markers:
    """The markers of a topic with these values by key, all of the same time."""

    def marker(key: bytes, value: bytes) -> SimpleNamespace:
        said = {"key": key, "value": value, "timestamp": (1, 5), "partition": 0, "offset": 7}
        return SimpleNamespace(**{name: partial(lambda each: each, each) for name, each in said.items()})

    monkeypatch.setattr(replay_markers, "read_to_end", lambda *_, **__: [marker(*each) for each in values.items()])
    return read_markers("host:1", "dead", client={}, timeout=5.0)


def letter(identifier: str, group: str) -> Letter:
    """As much of one as its marker needs."""
    record = SourceRecord("dead", 0, 0, 0, None, None, (), None, 0.0)
    return Letter(identifier, "raw", 0, 2, "decode", "InvalidJson", None, "", None, record, group)
