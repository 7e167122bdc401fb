"""``rexstream tune`` against a model server whose calls take as long as a formula says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from stub_server import write_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from stub_server import StubServer

FLOOR, FIXED, TOKEN, PAIR = 0.03, 0.01, 4e-5, 2e-7
"""Seconds; far above what the stub, the wire and this process take, also on a busy machine."""


def simulated(rows: int, length: int) -> float:
    return max(FLOOR, FIXED + TOKEN * rows * length + PAIR * rows * length**2)


def test_the_coefficients_of_a_server_are_found(server: StubServer, tmp_path: Path) -> None:
    """Of one that computes a call at a time; what is recommended follows from them.

    The bounds are wide, since sleeps end late where processors are busy: by milliseconds that the fixed part takes up,
    and that are a few hundredths of the largest calls.
    """
    one_at_a_time = threading.Lock()

    def compute(request: Any, _: Any) -> None:
        rows, length = (dim.size for dim in request.inputs["input_ids"].tensor_shape.dim)
        with one_at_a_time:
            time.sleep(simulated(rows, length))

    server.before = compute
    out = tmp_path / "profile.json"
    options = ("--bundle", str(write_bundle(tmp_path / "bundle")), "--minutes", "0.25", "--max-tokens", "4096")
    result = subprocess.run(
        [sys.executable, "-m", "consumer", "tune", "--server", server.target, *options, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert out.exists(), result.stderr
    profile = json.loads(out.read_text("utf-8"))
    assert result.returncode == (1 if profile["doubts"] else 0), result.stderr
    cost = profile["cost"]
    assert cost["linear_seconds"] == pytest.approx(TOKEN, rel=0.5)
    assert cost["square_seconds"] == pytest.approx(PAIR, rel=0.5)
    assert max(cost["floor_seconds"], cost["fixed_seconds"]) == pytest.approx(FLOOR, rel=0.5)
    largest = [cell for cell in profile["grid"] if cell["rows"] * cell["length"] >= 2048]
    for cell in largest:
        assert cell["predicted_seconds"] == pytest.approx(simulated(cell["rows"], cell["length"]), rel=0.5), cell
    assert largest  # of six lengths as a rule; a busy machine gets to one or two in a quarter of a minute
    assert 512 <= profile["recommended"]["batching"]["max_tokens"] <= 4096
    assert "Recommended\nbatching:\n  max_tokens: " in result.stdout
    assert "\u5c4f\u5e55" not in result.stdout + result.stderr
