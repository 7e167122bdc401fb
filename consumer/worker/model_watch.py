"""Whether the configured model is available, and at which addresses, asked again and again on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from consumer.config.credential_files import CredentialFileError
from consumer.serving.client import TfServingClient
from consumer.serving.resolution import in_thread, listed, look_up, name_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from consumer.config.tree import ModelConfig
    from consumer.serving.bundle import Bundle
    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.serving.resolution import Name
    from consumer.worker.health import Health

_log = structlog.stdlib.get_logger(__name__)

POLL_SECONDS = 5.0
"""Between two polls while the model is there."""
WAIT_SECONDS = 1.0
"""The same while it is not."""
LOG_SECONDS = 30.0
"""Between two lines that say what the worker waits for."""
UNAVAILABLE_SECONDS = 3.0
"""Polls must fail for so long: single calls get lost."""

RESOLVE_SECONDS = 15.0
"""Between two look-ups of the model server's name: a new replica is used after so long at most."""
AGAIN_SECONDS = 1.0
"""The same at least, when an endpoint fails: its name may have another address already."""


async def watch_model(servers: ModelServers, model: ModelConfig, health: Health, found_once: asyncio.Event) -> None:
    """Write ``health.model_available`` and ``unavailable`` until cancelled; set ``found_once`` at the first success.

    It is available while one endpoint has it. Logs why it is not, at once and from time to time, since the reason may
    change, and when it is back.
    """
    log_at = 0.0
    lost_at: float | None = -UNAVAILABLE_SECONDS
    while True:
        clients = servers.clients
        if found := await _any_ready(clients.values()):
            lost_at = None
            if log_at and found_once.is_set():
                _log.info("the model is available again", target=model.target, model=model.name)
            found_once.set()
            log_at = 0.0
        elif lost_at is None:
            lost_at = time.monotonic()
        health.model_available = lost_at is None or time.monotonic() - lost_at < UNAVAILABLE_SECONDS
        reasons = [client.unready if len(clients) == 1 else f"{at}: {client.unready}" for at, client in clients.items()]
        health.unavailable = "" if found else "; ".join(reasons)
        if not health.model_available and time.monotonic() >= log_at:
            _log.warning("waiting for the model", target=model.target, model=model.name, reason=health.unavailable)
            log_at = time.monotonic() + LOG_SECONDS
        await asyncio.sleep(POLL_SECONDS if found else WAIT_SECONDS)


async def _any_ready(clients: Iterable[TfServingClient]) -> bool:
    """Whether one of them has the model; the first that does is enough, since others may hang."""
    asked = {asyncio.ensure_future(client.ready()) for client in clients}
    try:
        while asked:
            done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            # One that is closed meanwhile is cancelled, or raises.
            if True in [not (each.cancelled() or each.exception()) and each.result() for each in done]:
                return True
        return False
    finally:
        for each in asked:
            each.cancel()


async def first_found(found_once: asyncio.Event, waits: Callable[[bool], None]) -> None:
    """Wait for ``found_once``. Where that takes long, ``waits(True)`` is called before and ``waits(False)`` after it:
    also of a worker that has not joined yet, what scales by lag must see that more workers would wait, too.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(found_once.wait(), UNAVAILABLE_SECONDS)
    if not found_once.is_set():
        waits(True)
        await found_once.wait()
        waits(False)


class ModelServers:
    """The clients of the model servers, by address, and the look-up of the addresses."""

    def __init__(self, model: ModelConfig, bundle: Bundle, look_up: Callable[[Name], list[str]] = look_up) -> None:
        """Of every address that is known without looking it up. Raises CredentialFileError."""
        self._connect = partial(TfServingClient, model, bundle)
        self._name = name_in(model.target)
        self._look_up = look_up
        self._soon = asyncio.Event()
        self._known: list[str] = []
        self._failed = ""
        self.clients = {address: self._connect(address) for address in listed(model.target)}

    def endpoint(self, address: str, reason: str) -> None:
        """One of several endpoints cannot be used, for this reason; or it can, when that is empty."""
        if reason:
            self._soon.set()
            _log.error("a model server cannot be used", address=address, reason=reason)
        else:
            _log.info("a model server can be used", address=address)

    def endpoint_of_several(self, address: str, reason: str) -> None:
        """As ``endpoint``, for one of several bundles or versions: that one does not fit is usual there."""
        if reason:
            self._soon.set()
        _log.info("a bundle and a model server", address=address, reason=reason or "they belong together")

    async def run(self, dispatcher: Dispatcher) -> None:
        """Tell the dispatcher of every change, until cancelled; ends at once where the target has no name."""
        while self._name is not None:
            try:
                self._found(await in_thread(self._look_up, self._name), dispatcher)
                self._failed = ""
            except (OSError, CredentialFileError) as error:  # the endpoints stay as they are
                if str(error) != self._failed:
                    _log.warning("the model server's name is not known", host=self._name.host, reason=str(error))
                self._failed = str(error)
            self._soon.clear()
            await asyncio.sleep(AGAIN_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_SECONDS - AGAIN_SECONDS):
                    await self._soon.wait()

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(client.close() for client in self.clients.values()))

    def _found(self, addresses: list[str], dispatcher: Dispatcher) -> None:
        # A name with one address is gRPC's to look up, until it has had several.
        if len(addresses) > (0 if self._known else 1):
            made: dict[str, TfServingClient] = {}
            dispatcher.resolved(addresses, lambda address: made.setdefault(address, self._connect(address)))
            self.clients = {at: each for at, each in (self.clients | made).items() if at in dispatcher.addresses}
            if addresses != self._known:
                _log.info("addresses of the model server", addresses=addresses)
            self._known = addresses
