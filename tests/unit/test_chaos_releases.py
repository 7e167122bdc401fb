"""The chaos suite's other releases: where they cannot be had, their scenarios say so and run nothing."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any, cast

import pytest
from chaos.releases import OLD, command
from chaos.report import table
from chaos.runner import Runner
from chaos.scenario import Scenario, Skipped

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.clusters import Clusters


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_clone_without_the_history_says_what_it_needs(tmp_path: Path) -> None:
    """As a shallow one has none, and an unpacked archive is no clone."""
    with pytest.raises(Skipped, match=f"{OLD[:12]} is not in this checkout: that needs git and a whole clone"):
        command(OLD, tmp_path)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(Skipped, match="a whole clone"):
        command(OLD, tmp_path)
    assert not (tmp_path / ".cache").exists()


def test_a_release_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    """Without a look at git."""
    folder = tmp_path / ".cache" / "releases" / OLD[:12]
    folder.mkdir(parents=True)
    (folder / ".done").touch()
    assert command(OLD, tmp_path) == (str(folder / ".venv" / "bin" / "rexstream"),)


def test_a_scenario_that_cannot_be_prepared_is_reported_as_skipped_and_why(tmp_path: Path) -> None:
    """It starts no cluster, and is neither passed over in silence nor a failure."""

    def prepare() -> None:
        raise Skipped("there is no git")

    def play(_: object) -> None:
        raise AssertionError

    clusters = cast("Clusters", cast("Any", None))
    runner = Runner(clusters, 1, tmp_path, 1.0, tmp_path / "report.json")
    runner.run([Scenario("two_releases", "fault", "expected", play, ("exactly_once",), prepare=prepare)], None)
    (report,) = runner.reports
    assert (report.skipped, report.passed) == ("there is no git", True)
    assert "| skipped |" in table(runner.reports)
    assert "**two_releases** (exactly_once) was not run: there is no git" in table(runner.reports)
    assert "there is no git" in (tmp_path / "report.json").read_text(encoding="utf-8")
