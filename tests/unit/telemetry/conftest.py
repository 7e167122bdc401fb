from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def process_logging(logging_as_before: None) -> Iterator[None]:  # noqa: ARG001
    """Puts the process-wide logging state back after a test that configures it."""
    yield
    structlog.contextvars.clear_contextvars()
