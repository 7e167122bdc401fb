"""``rexstream demo``, whole: embedded broker, local model server, shipped model, one worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len


def children_of(marker: str) -> list[str]:
    """Command lines of the processes that carry ``marker`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.model
@pytest.mark.broker
@pytest.mark.timeout(400)
def test_the_demo_runs_audits_itself_and_leaves_nothing_behind() -> None:
    """Exit code 0, every section of the summary in 100 columns, and no process of its own afterwards."""
    marker = f"REXSTREAM_TEST_DEMO=run-{os.getpid()}"
    name, value = marker.split("=")
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "demo", "--rows", "3", "--reviews", "100"],
        capture_output=True,
        text=True,
        env={key: text for key, text in os.environ.items() if key != "COLUMNS"} | {name: value},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "reviews/s",
        "p50 / p95 / p99",
        "padding",
        "windows per review",
        "InvalidJson",
        "dropped",
        "sentiment ",
        "annotated facts",
        "What the model gets wrong most: ",
    ):
        assert part in done.stdout
    assert "100 reviews and 12 broken events sent" in done.stdout
    assert "every event has exactly its outcomes" in done.stdout
    assert max(map(cell_len, done.stdout.splitlines())) == 100
    assert children_of(marker) == []
