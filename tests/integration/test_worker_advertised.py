"""A worker whose brokers advertise an address that cannot be reached: /readyz names it, and it goes on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stub_server import StubServer
from worker_run import Run

from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.broker


@pytest.fixture
def server() -> Iterator[StubServer]:
    stub = StubServer()
    yield stub
    stub.stop()


def test_readyz_names_the_address(server: StubServer, tmp_path: Path) -> None:
    """Until the group is joined; when the brokers advertise another, the worker is ready without a restart."""
    topics = ["in", "out", "dead"]
    with EmbeddedBroker(topics=dict.fromkeys(topics, 1)) as broker:
        host, port = broker.bootstrap_servers.split(":")
        broker.advertise(1, "127.0.0.1", 1)
        run = Run(broker.bootstrap_servers, topics, server, tmp_path)
        run.start()
        try:

            def reasons() -> str:
                return " ".join(run.get("/readyz")[1]["reasons"])

            run.wait(lambda: "127.0.0.1:1 (Connect to" in reasons())
            assert "advertised.listeners" in reasons()
            assert run.get("/readyz")[0] == 503
            broker.advertise(1, host, int(port))
            run.wait(lambda: run.get("/readyz")[0] == 200)
            assert run.end() == 0
        finally:
            run.kill()
