"""CPUs of this process, not of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.local.model_server import usable_cpus

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("quota", "cpus"), [("50000 100000", 1), ("100000 100000", 1), ("1 100000", 1)])
def test_the_quota_of_a_container_counts(tmp_path: Path, quota: str, cpus: int) -> None:
    """A quota below one whole CPU still leaves one."""
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cpus(tmp_path / "cpu.max") == cpus


@pytest.mark.parametrize("content", ["max 100000", "", "100000000 100000"])
def test_without_a_tighter_quota_all_count(tmp_path: Path, content: str) -> None:
    """No quota, an unreadable one or one above the machine's size changes nothing."""
    (tmp_path / "cpu.max").write_text(content)
    assert usable_cpus(tmp_path / "cpu.max") == usable_cpus(tmp_path / "missing") >= 1
