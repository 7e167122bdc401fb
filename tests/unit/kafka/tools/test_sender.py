"""Paced production where every record is acknowledged or reported."""

from __future__ import annotations

import pytest

from consumer.kafka.tools.sender import NewRecord, Sender
from consumer.local.broker import EmbeddedBroker

pytestmark = pytest.mark.broker


def test_the_rate_is_kept_by_the_clock() -> None:
    """The n-th record waits until n / rate seconds after the first."""
    now, read_at = 0.0, []

    def clock() -> float:
        nonlocal now
        now += 0.02
        return now

    with EmbeddedBroker() as broker:
        sender = Sender(broker.bootstrap_servers, "t", rate=10.0, clock=clock)
        sender.send((NewRecord(f"line {n}", None, b"v") for n in range(4)), lambda _: read_at.append(now))
        assert sender.finish().acknowledged == 4
    assert read_at[0] < 0.1
    for number, moment in enumerate(read_at[1:], 1):
        assert number / 10.0 <= moment - 0.02 <= number / 10.0 + 0.1


def test_ctrl_c_during_callbacks_is_an_interrupt() -> None:
    """The client says SystemError then, having lost the exception."""

    class Interrupted:
        def produce(self, *_: object, **__: object) -> None: ...

        def poll(self, _: float) -> None:
            raise SystemError("<method 'poll' of 'cimpl.Producer' objects> returned NULL without setting an exception")

    with EmbeddedBroker() as broker:
        sender = Sender(broker.bootstrap_servers, "t")
        sender._producer = Interrupted()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            sender.send([NewRecord("line 1", None, b"v")])


def test_a_record_that_nobody_acknowledges_is_reported() -> None:
    """Without a broker every record fails by name, within its time, and counts as unanswered."""
    with EmbeddedBroker() as broker:
        address = broker.bootstrap_servers
    sender = Sender(address, "t", timeout=1.0)
    sender.send([NewRecord("line 1", b"k", b"v"), NewRecord("line 2", b"k", b"v")])
    delivery = sender.finish()
    assert (delivery.acknowledged, delivery.failed, delivery.timed_out) == (0, 2, 2)
    assert [failure.split(":")[0] for failure in delivery.failures] == ["line 1", "line 2"]


def test_a_record_that_is_too_large_is_reported_and_the_next_one_sent() -> None:
    """One refused record stops no other."""
    with EmbeddedBroker() as broker:
        sender = Sender(broker.bootstrap_servers, "t")
        sender.send([NewRecord("line 1", None, b"x" * 2_000_000), NewRecord("line 2", None, b"v")])
        delivery = sender.finish()
    assert (delivery.acknowledged, delivery.failed, delivery.timed_out) == (1, 1, 0)
    assert delivery.failures[0].startswith("line 1: ")
