"""What every unit test shares, and logging put back as it was."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import structlog
from uncached_loggers import loggers_are_not_cached

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["loggers_are_not_cached"]


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Puts the process-wide logging state back after a command that configures it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()
