"""``dead-letters list --summary`` as a process, on dead letters that a worker wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker_run import Run, reviews

from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from pathlib import Path

    from stub_server import StubServer

SECRET = "拉链一拉就坏"


def test_a_summary_counts_the_letters_of_a_worker_and_holds_no_review(server: StubServer, tmp_path: Path) -> None:
    """By the configuration of the worker, for a person and for a machine, in one read."""
    bad = [b"\xff", b"{", b"[" + SECRET.encode(), json.dumps({"text": SECRET, "tasks": [SECRET]}).encode()]
    with EmbeddedBroker(topics={"in": 2, "out": 2, "dead": 2}) as broker:
        worker = Run(broker.bootstrap_servers, ("in", "out", "dead"), server, tmp_path)

        def listed(*options: str) -> str:
            command = (sys.executable, "-m", "consumer", "dead-letters", "list", "--config", str(worker.config_file))
            arguments = (*command, "--summary", *options)
            done = subprocess.run(arguments, capture_output=True, text=True, env=dict(os.environ), check=False)
            assert (done.returncode, SECRET in done.stdout + done.stderr) == (0, False), done.stderr
            return done.stdout

        try:
            before = datetime.now(UTC)
            worker.start()
            worker.send([*reviews(5), *(("k", value) for value in bad)])
            worker.wait(lambda: len(worker.dead_letters()) == 4)
            hours = {f"{moment:%Y-%m-%dT%H:00Z}" for moment in (before, datetime.now(UTC))}
            summary, filtered = json.loads(listed("--json")), json.loads(listed("--json", "--class", "InvalidUtf8"))
            table = listed()
            assert worker.signal(signal.SIGTERM) == 0
        finally:
            worker.kill()
    counts: dict[tuple[str, str, str, str | None], int] = {}
    for row in summary["rows"]:
        cause = row["topic"], row["stage"], row["class"], row["task"]
        counts[cause] = counts.get(cause, 0) + row["dead_letters"]
    assert counts == {
        ("in", "decode", "InvalidUtf8", None): 1,
        ("in", "decode", "InvalidJson", None): 2,
        ("in", "validate", "UnknownTask", "(no task)"): 1,
    }
    assert {row["hour"] for row in summary["rows"]} <= hours
    assert (summary["dead_letters"], summary["others"], filtered["dead_letters"]) == (4, 0, 1)
    assert "4 dead letters in dead\n" in table
    assert "2  decode/InvalidJson" in table
