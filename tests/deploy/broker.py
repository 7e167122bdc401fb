"""An embedded broker in a process of its own, with the topics of the documents."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.chart import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPICS = ("reviews.raw", "reviews.extracted", "reviews.dead")
"""Input, output, dead letters."""


@contextmanager
def embedded_broker() -> Iterator[str]:
    """Its address, while it runs."""
    broker = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/integration/mock_broker.py"), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert broker.stdin is not None
    assert broker.stdout is not None
    address = broker.stdout.readline().strip()
    for name in TOPICS:
        broker.stdin.write(f"topic {name} 4\n")
        broker.stdin.flush()
        assert broker.stdout.readline() == "done\n"
    yield address
    broker.stdin.close()
    broker.wait(10)
