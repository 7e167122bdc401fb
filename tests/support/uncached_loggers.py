"""A fixture for conftest modules: loggers that a test can capture, whatever ran before it."""

from __future__ import annotations

from typing import Any

import pytest
import structlog


@pytest.fixture(scope="session", autouse=True)
def loggers_are_not_cached() -> None:
    """A logger that was used once after ``configure_logging`` would keep its processors, out of reach of a test."""
    configure = structlog.configure

    def without_cache(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    structlog.configure = without_cache  # type: ignore[assignment]
