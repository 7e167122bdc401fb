"""What is logged of librdkafka's own log lines and errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from consumer.kafka.clients.errors import REPEAT_SECONDS, error_callback, librdkafka_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Seen:
    """An observer, a clock and a place for fatal errors."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.fatal: list[BaseException] = []
        self.now = 0.0

    def client_error(self, client: str, code: str) -> None:
        self.codes.append(f"{client} {code}")

    def callback(self) -> Callable[[KafkaError], None]:
        observer: Any = self
        return error_callback("consumer", observer, self.fatal.append, lambda: self.now)


def test_one_trouble_is_logged_once_in_a_while() -> None:
    """A client that cannot log in tries for ever: each kind of error is logged again after a time, with the way out."""
    seen = Seen()
    callback = seen.callback()
    refused = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: no")
    with capture_logs() as lines:
        for _ in range(5):
            callback(refused)
        callback(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        first, second = lines
        assert (first["client"], first["reason"]) == ("consumer", "SASL authentication error: no")
        assert (first["code"], first["log_level"]) == ("_AUTHENTICATION", "warning")
        assert first["fix"].startswith("check kafka.security's mech")
        assert first["event"].endswith("goes on trying")
        assert second == {**first, "reason": "1/1 brokers are down", "code": "_ALL_BROKERS_DOWN", "fix": None}
        seen.now = REPEAT_SECONDS
        callback(refused)
        assert lines[2:] == [first]
    assert len(seen.codes) == 7
    assert seen.fatal == []


def test_lost_connections_are_logged_only_where_security_is_the_reason() -> None:
    """The client's own log has a line for each already."""
    callback = Seen().callback()
    with capture_logs() as lines:
        callback(KafkaError(KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:9 failed: Connection refused"))
        assert lines == []
        callback(KafkaError(KafkaError._TRANSPORT, "ssl/tls alert bad certificate: SSL alert number 42"))
    assert "certificate_file" in lines[0]["fix"]


def test_a_fatal_error_is_passed_on_every_time() -> None:
    """It ends the process."""
    seen = Seen()
    callback = seen.callback()
    for _ in range(2):
        callback(KafkaError(KafkaError._FENCED, "newer one", fatal=True))
    assert len(seen.fatal) == 2
    assert "_FENCED: newer one" in str(seen.fatal[0])


def lines_of(client: str, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """And of no client that an earlier test left behind."""
    return [record for record in caplog.records if record.name == f"librdkafka.{client}"]


def test_log_lines_that_differ_in_counts_only_are_repeats(caplog: pytest.LogCaptureFixture) -> None:
    """They are logged once for a while; lines about another broker, or of another kind, at once."""
    caplog.set_level(logging.INFO)
    first, second = librdkafka_logger("test-a"), librdkafka_logger("test-a")
    for number in range(4):
        first.error("FAIL 127.0.0.1:%d refused (after %dms, %d identical)", 9000 + number % 2, number, number)
        second.error("FAIL 127.0.0.1:9000 reset")
    assert [record.getMessage() for record in lines_of("test-a", caplog)] == [
        "FAIL 127.0.0.1:9000 refused (after 0ms, 0 identical)",
        "FAIL 127.0.0.1:9000 reset",
        "FAIL 127.0.0.1:9001 refused (after 1ms, 1 identical)",
    ]
    for number in range(500):
        first.error("other %s", "x" * number)
    assert len(lines_of("test-a", caplog)) == 503


def test_a_line_is_logged_again_after_a_time(caplog: pytest.LogCaptureFixture) -> None:
    """So that a trouble that lasts stays in sight."""
    logger = librdkafka_logger("test-b")
    for created in (0.0, REPEAT_SECONDS - 1, REPEAT_SECONDS + 1):
        record = logger.makeRecord(logger.name, logging.ERROR, "", 0, "FAIL", (), None)
        record.created = 1e9 + created
        logger.handle(record)
    assert len(lines_of("test-b", caplog)) == 2


def test_a_transaction_that_an_abort_mends_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Every rebalance fails one; on call, nobody should be woken by it."""
    caplog.set_level(logging.INFO)
    logger = librdkafka_logger("test-c")
    logger.error("TXNERR [thrd:main]: Current transaction failed in state InTransaction: (ILLEGAL_GENERATION)")
    logger.error("TXNERR [thrd:main]: Fatal transaction error: fenced")
    assert [record.levelname for record in lines_of("test-c", caplog)] == ["INFO", "ERROR"]
