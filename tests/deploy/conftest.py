"""Fixtures of the checks of deploy/."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deploy.chart import VARIANTS
from deploy.tools import tool

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_addoption(parser: pytest.Parser) -> None:
    """``make pictures``."""
    parser.addoption("--pictures", type=Path, help="folder that pictures of the status page are written to")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """The values of one of VARIANTS."""
    return VARIANTS[request.param]


@pytest.fixture
def packaged() -> Callable[..., str]:
    """Run a program of the tools' Python environment, or ``python``; standard output."""

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run([tool(program), *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
