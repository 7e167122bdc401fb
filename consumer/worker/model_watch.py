"""Whether the configured model is available on its server, asked again and again. A function of the event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from consumer.config.tree import ModelConfig
    from consumer.serving.client import TfServingClient
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


async def watch_model(client: TfServingClient, model: ModelConfig, health: Health, found_once: asyncio.Event) -> None:
    """Write ``health.model_available`` and ``unavailable`` until cancelled; set ``found_once`` at the first success.

    Logs why the model is not available, at once and from time to time, since the reason may change, and when it is
    back.
    """
    log_at = 0.0
    lost_at: float | None = -UNAVAILABLE_SECONDS
    while True:
        if found := await client.ready():
            lost_at = None
            if log_at and found_once.is_set():
                _log.info("the model is available again", target=model.target, model=model.name)
            found_once.set()
            log_at = 0.0
        elif lost_at is None:
            lost_at = time.monotonic()
        health.model_available = lost_at is None or time.monotonic() - lost_at < UNAVAILABLE_SECONDS
        health.unavailable = client.unready
        if not health.model_available and time.monotonic() >= log_at:
            _log.warning("waiting for the model", target=model.target, model=model.name, reason=client.unready)
            log_at = time.monotonic() + LOG_SECONDS
        await asyncio.sleep(POLL_SECONDS if found else WAIT_SECONDS)
