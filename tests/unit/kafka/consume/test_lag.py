"""What the lag thread says when it gets no answer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from runtime_harness import Observed
from structlog.testing import capture_logs

from consumer.events import Partition
from consumer.kafka.consume import lag
from consumer.kafka.consume.lag import LagWatch


@pytest.mark.parametrize(("code", "hinted"), [(KafkaError._TIMED_OUT, True), (KafkaError._TRANSPORT, False)])
def test_offsets_that_a_transaction_holds_back_are_told_with_the_way_out(
    code: int, hinted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where brokers are silent on this one question; a broker that is away is another matter."""

    class Client:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def committed(self, *_: Any, **__: Any) -> Any:
            raise KafkaException(KafkaError(code))

        def poll(self, _: float) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(lag, "Consumer", Client)
    watch = LagWatch({}, "group", lambda: [Partition("in", 0)], Observed(), interval=0.001)
    with capture_logs() as lines:
        watch.thread.start()
        deadline = time.monotonic() + 10
        while not lines and time.monotonic() < deadline:
            time.sleep(0.005)
        watch.end()
        watch.thread.join(10)
    assert not watch.thread.is_alive()
    assert lines[0]["log_level"] == "warning"
    assert ("kafka-transactions.sh find-hanging" in (lines[0]["fix"] or "")) is hinted
    assert watch.lags == {}
