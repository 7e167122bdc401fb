"""Reading topics, where a broker or a producer is unkind."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from consumer.delivery.letters import read_letter
from consumer.kafka.clients.cluster import TopicUnusable
from consumer.kafka.tools import reader as tailing
from consumer.kafka.tools.reader import headers_of, read_to_end, record_of


class StubMessage:
    """A record of which the client cannot give the headers, or with ``problem`` the news of an error."""

    def __init__(self, problem: KafkaError | None = None) -> None:
        self._problem = problem

    def headers(self) -> list[tuple[str, bytes]]:
        raise SystemError("returned NULL without setting an exception")

    def error(self) -> KafkaError | None:
        return self._problem

    def topic(self) -> str:
        return "reviews.dead"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def timestamp(self) -> tuple[int, int]:
        return 1, 1


class StubReader:
    """A topic with records, of which it gives none but the news in ``messages``."""

    messages: tuple[StubMessage, ...] = ()

    def __init__(self, *_: Any, **__: Any) -> None:
        self.consumer = self
        self._left = list(self.messages)

    def __enter__(self) -> StubReader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def partitions(self, _topic: str) -> list[int]:
        return [0]

    def watermarks(self, _topic: str, _partition: int) -> tuple[int, int]:
        return 0, 5

    def incremental_assign(self, _partitions: object) -> None:
        pass

    def assign(self, _partitions: object) -> None:
        pass

    def poll(self, _timeout: float) -> StubMessage | None:
        return self._left.pop(0) if self._left else None

    def unreachable(self) -> Exception:
        return AssertionError("an outage")


def test_a_record_with_a_header_name_that_is_no_utf_8_has_no_headers() -> None:
    """The client gives none of them; in a dead-letter topic it is no dead letter, and is not replayed."""
    message: Any = StubMessage()
    assert headers_of(message) == ()
    assert record_of(message).value == b"v"
    assert read_letter(record_of(message)) is None


def test_a_topic_that_may_only_be_described_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its partitions and their ends are told, its records are not."""
    monkeypatch.setattr(tailing, "Reader", StubReader)
    monkeypatch.setattr(StubReader, "messages", (StubMessage(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)),))
    with pytest.raises(TopicUnusable, match=r"'reviews\.dead' cannot be read.*READ"):
        list(read_to_end("host:1", "reviews.dead"))


def test_a_batch_that_cannot_be_read_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a replay would leave dead letters out and say that it is done."""
    monkeypatch.setattr(tailing, "Reader", StubReader)
    monkeypatch.setattr(StubReader, "messages", (StubMessage(KafkaError(KafkaError._BAD_MSG)),))
    said = r"reviews\.dead-0: the batch at offset 0 cannot be read"
    with pytest.raises(TopicUnusable, match=said):
        list(read_to_end("host:1", "reviews.dead"))
    with pytest.raises(TopicUnusable, match=said):
        tailing.Tail("host:1", ["reviews.dead"], "beginning").poll(0)
