"""What the tests of the runtime share: a worker on a runtime, the cluster seen from outside, and a way to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from runtime_harness import Cluster, Worker, running

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
    with running() as start_worker:
        yield lambda *args, **kwargs: start_worker(Worker(*args, **kwargs))
