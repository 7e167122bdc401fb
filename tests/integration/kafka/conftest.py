"""What the tests of the edge share: a worker on an edge, the cluster seen from outside, and a way to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from edge_harness import Cluster, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def cluster(mock_broker: Any) -> Cluster:
    return Cluster(mock_broker.bootstrap)


@pytest.fixture
def cluster_of() -> Callable[[Any], Cluster]:
    return lambda broker: Cluster(broker.bootstrap)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Starts workers; whatever the test leaves running is closed without a drain."""
    running: list[Worker] = []

    def start_worker(*args: Any, **kwargs: Any) -> Worker:
        worker = Worker(*args, **kwargs)
        running.append(worker)
        worker.edge.start()
        return worker

    yield start_worker
    for worker in running:
        worker.edge.drain(0.0)
