"""How many of our files run for one event, from poll to commit."""

from __future__ import annotations

from pathlib import Path

import pytest
from house.trace import files_of_one_event

MOST_FILES = 26
"""What a newcomer can read in an afternoon; docs/architecture.md walks through them."""


@pytest.mark.broker
def test_one_event_runs_through_few_files() -> None:
    """And through those that the architecture names: a rare path must not have crept into every event."""
    files = files_of_one_event(Path(__file__).parents[2])
    assert {"kafka/consume/poll_thread.py", "delivery/ledger.py", "serving/client.py", "events.py"} <= set(files)
    assert len(files) <= MOST_FILES, files
    walk = (Path(__file__).parents[2] / "docs/architecture.md").read_text("utf-8")
    assert [file for file in files if Path(file).name not in walk] == []
