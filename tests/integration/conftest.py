"""An embedded broker for every test that needs one: librdkafka's mock cluster, in memory, in its own process."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stub_server import StubServer
from uncached_loggers import loggers_are_not_cached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_run import Run

__all__ = ["loggers_are_not_cached"]

_NAMES = itertools.count()


class MockBroker:
    """A running mock cluster, of one broker unless told otherwise. It loses data above about 4 MB a partition."""

    def __init__(self, brokers: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mock_broker.py")), str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.bootstrap = self._process.stdout.readline().strip()

    def order(self, line: str) -> None:
        """One order of mock_broker.py, carried out when this returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def topic(self, partitions: int, label: str = "topic") -> str:
        """A new topic; its name."""
        name = f"{label}-{next(_NAMES)}"
        self.order(f"topic {name} {partitions}")
        return name

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


@pytest.fixture(scope="session")
def mock_broker() -> Iterator[MockBroker]:
    """The broker that the session's tests share; topics keep them apart."""
    broker = MockBroker()
    if not broker.bootstrap:
        pytest.skip("librdkafka is not bundled with confluent_kafka here, so its mock cluster cannot be reached")
    yield broker
    broker.close()


@pytest.fixture
def two_brokers() -> Iterator[MockBroker]:
    """A cluster of two for one test that takes one of them away."""
    broker = MockBroker(2)
    if not broker.bootstrap:
        pytest.skip("librdkafka is not bundled with confluent_kafka here, so its mock cluster cannot be reached")
    yield broker
    broker.close()


@pytest.fixture
def own_broker() -> Iterator[MockBroker]:
    """A broker for one test that makes it fail."""
    broker = MockBroker()
    if not broker.bootstrap:
        pytest.skip("librdkafka is not bundled with confluent_kafka here, so its mock cluster cannot be reached")
    yield broker
    broker.close()


@pytest.fixture
def server() -> Iterator[StubServer]:
    """A model server of one test's own, held up until its gate is open where the test closes it."""
    stub = StubServer()
    yield stub
    stub.gate.set()
    stub.stop()


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Workers to end with the test."""
    started: list[Run] = []
    yield started
    for run in started:
        run.kill()
