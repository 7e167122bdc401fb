"""The measurement of an unknown model server, against clients in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from unittest.mock import create_autospec

import grpc.aio
import pytest
import virtual_time
from cells import cells_of
from dispatcher_harness import BATCH_FAULT, UNAVAILABLE, window

from consumer.batching.cost_probe import SECONDS
from consumer.batching.policy import CallCost
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.dispatch.endpoint import EndpointStatus
from consumer.serving.protocol import Answer, Failure, ServingError
from consumer.worker.cost_measurement import measure, measure_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window


class Server:
    """Takes as long as its cost says, and keeps to the timeout; ``fails`` from its n-th call on."""

    def __init__(self, cost: CallCost, fails: ServingError | None = None, after: int = 0) -> None:
        self.cost = cost
        self.fails = fails
        self.after = after
        self.calls: list[tuple[int, int]] = []

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        self.calls.append((len(windows), padded_length))
        if self.fails is not None and len(self.calls) > self.after:
            raise self.fails
        seconds = self.cost.seconds(len(windows), padded_length)
        await asyncio.sleep(min(seconds, timeout))
        if seconds > timeout:
            raise ServingError(Failure.TRANSIENT, "DEADLINE_EXCEEDED", "too slow")
        return Answer(tuple(cells_of({}) for _ in windows), "m", "1", "serving_default", seconds)

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def measured(server: Server) -> tuple[CallCost | None, float]:
    """What is believed, and how long it took."""

    async def main() -> tuple[CallCost | None, float]:
        clock = asyncio.get_running_loop().time
        return await measure(server, window(1, 24), 16_384, clock), clock()

    return virtual_time.run(main())


def test_a_fast_server_is_measured_with_calls_up_to_the_largest() -> None:
    """In far less than the time it may take."""
    server = Server(CallCost(0.0, 0.003, 4e-7, 1e-10))
    cost, seconds = measured(server)
    assert cost is not None
    assert cost.per_token == pytest.approx(4e-7, rel=0.1)
    assert max(rows * length for rows, length in server.calls) == 8192
    assert seconds < SECONDS


@pytest.mark.parametrize("per_token", [1e-5, 1e-4, 1e-3, 1e-1])
def test_a_slow_server_is_asked_for_two_seconds_at_most(per_token: float) -> None:
    """Whatever a call takes: the last one has the rest of the time as its timeout."""
    _, seconds = measured(Server(CallCost(0.0, 0.01, per_token, 0.0)))
    assert seconds <= SECONDS


@pytest.mark.parametrize("error", [UNAVAILABLE, BATCH_FAULT])
def test_a_server_that_fails_is_not_asked_again(error: ServingError) -> None:
    """What to do about it is decided where there is work."""
    server = Server(CallCost(0.0, 0.003, 1e-6, 0.0), error, after=4)
    cost, seconds = measured(server)
    assert cost is None
    assert len(server.calls) == 5
    assert seconds < SECONDS


class Closed(Server):
    """Its address vanishes at its third call, which raises ``error``, as those of a closed channel do."""

    def __init__(self, addresses: set[str], error: BaseException) -> None:
        super().__init__(CallCost(0.0, 0.003, 1e-6, 0.0))
        self.addresses = addresses
        self.error = error

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        if len(self.calls) == 2:
            self.addresses.clear()
            raise self.error
        return await super().predict(windows, padded_length, timeout)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), grpc.aio.UsageError("Channel is closed.")])
def test_an_address_that_vanishes_while_it_is_measured_does_not_end_the_worker(error: BaseException) -> None:
    """A name that has one address at first, and then others: the worker must not take that for its own end."""
    dispatcher = create_autospec(Dispatcher, instance=True)
    dispatcher.endpoints = [EndpointStatus("a:1", "ok", 0, 1, 0, 0, "", 1.0)]
    dispatcher.addresses = {"a:1"}
    server = Closed(dispatcher.addresses, error)
    assert virtual_time.run(measure_first({"a:1": server}, dispatcher, window(1, 24), 16_384)) is None
    dispatcher.costs.assert_not_called()


def test_a_measurement_ends_with_the_worker() -> None:
    """Not taken for a closed channel, whatever the addresses are."""

    async def main() -> bool:
        dispatcher = create_autospec(Dispatcher, instance=True)
        dispatcher.endpoints, dispatcher.addresses = [EndpointStatus("a:1", "ok", 0, 1, 0, 0, "", 1.0)], ()
        server = Server(CallCost(0.0, 1.0, 0.0, 0.0))
        task = asyncio.create_task(measure_first({"a:1": server}, dispatcher, window(1, 24), 16_384))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert virtual_time.run(main())
