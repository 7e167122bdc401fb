"""Measures a model server that ``batching.cost`` says nothing about, before the worker consumes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from consumer.batching.call_cost import Cell
from consumer.batching.cost_probe import REPEATS, SECONDS, believed, goes_on, shapes
from consumer.batching.queue import padded_length
from consumer.serving.protocol import ServingError
from consumer.serving.refused import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.batching.policy import CallCost
    from consumer.extraction.window import Window
    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.serving.protocol import ModelClient

_log = structlog.stdlib.get_logger(__name__)

_NOT_MEASURED = "the model server could not be measured: its calls are taken for an accelerator's"


async def measure_first(
    clients: Mapping[str, ModelClient], dispatcher: Dispatcher, window: Window, max_tokens: int
) -> CallCost | None:
    """As ``measure``, at the first endpoint that can be used; the dispatcher expects such calls from then on.

    None, with a log line, also if that endpoint's address vanishes meanwhile: it is closed then, with these calls.
    """
    address = next((each.address for each in dispatcher.endpoints if each.state == State.OK.value), None)
    if address is None:
        return None
    try:
        cost = await measure(clients[address], window, max_tokens)
    except (Exception, asyncio.CancelledError):  # a closed channel cancels its calls
        task = asyncio.current_task()
        if address in dispatcher.addresses or (task is not None and task.cancelling()):
            raise
        _log.warning(_NOT_MEASURED, ended_by="its address vanished", address=address)
        return None
    if cost is not None:
        dispatcher.costs(cost)
    return cost


async def measure(
    client: ModelClient, window: Window, max_tokens: int, clock: Callable[[], float] = time.monotonic
) -> CallCost | None:
    """What calls of ``window``, which any healthy model answers, cost; None, with a log line, where that stays unclear.

    Takes two seconds at most. A call that fails ends it: what to do about that is the dispatcher's, when there is work.
    """
    began, cells, failure = clock(), list[Cell](), ""
    try:
        for rows, length in shapes(padded_length(window.length), max_tokens):
            if not goes_on(cells, clock() - began):
                break
            repeats: list[float] = []
            while len(repeats) < REPEATS and (left := SECONDS - (clock() - began)) > 0:
                sent_at = clock()
                await client.predict([window] * rows, length, left)
                repeats.append(clock() - sent_at)
            if repeats:
                cells.append(Cell(rows, length, tuple(repeats)))
    except ServingError as error:
        failure = error.code
    cost = believed(cells)
    words = {"calls": len(cells), "seconds": round(clock() - began, 3), "ended_by": failure or None}
    if cost is None:
        _log.warning(_NOT_MEASURED, **words)
        return None
    _log.info(
        "model server measured",
        floor_seconds=cost.floor,
        fixed_seconds=cost.fixed,
        linear_seconds=cost.per_token,
        square_seconds=cost.per_pair,
        error=round(cost.error, 3),
        **words,
    )
    return cost
