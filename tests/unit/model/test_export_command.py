"""``rexstream export`` reports what it wrote and fails with the right code."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from consumer.cli.export import command

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = micro.write_with_tokenizer(tmp_path_factory.mktemp("checkpoint"))
    return folder


def test_json_report(tmp_path: Path, checkpoint: Path) -> None:
    """Standard output holds one JSON object, standard error the steps."""
    result = run("--checkpoint", checkpoint, "--output", tmp_path / "m", "--version", 3, "--json", "--max-tokens", 512)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["version"], report["precision"], report["parameters"]) == (3, "float32", 10_924)
    assert report["folder"] == str(tmp_path / "m" / "3")
    assert report["files"]["saved_model.pb"] == (tmp_path / "m" / "3" / "saved_model.pb").stat().st_size
    assert 0 < report["self_check"]["relative_error"] < 1e-4
    assert result.stderr.splitlines() == ["reading the checkpoint", "writing the graph", "checking the written model"]


def test_table_and_failing_self_check(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person gets a table; a model that fails its check is removed and the exit code is 1."""
    from consumer.model import self_check

    result = run("--checkpoint", checkpoint, "--output", tmp_path / "m", "--precision", "bfloat16")
    assert result.exit_code == 0, result.output
    for part in ("serving_default, dense", "10,924", "bfloat16", "bundle/tokenizer.json", "30 requests"):
        assert part in result.stdout
    monkeypatch.setitem(self_check.TOLERANCE, "bfloat16", 1e-9)
    result = run("--checkpoint", checkpoint, "--output", tmp_path / "m", "--precision", "bfloat16")
    assert result.exit_code == 1
    assert "failed its self-check and was removed" in result.stderr
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]


def test_a_bad_checkpoint_is_bad_usage(tmp_path: Path) -> None:
    """Exit code 2 and the file that is missing."""
    result = run("--checkpoint", tmp_path / "absent", "--output", tmp_path / "m")
    assert result.exit_code == 2
    assert "config.json does not exist" in result.stderr


def test_a_taken_version_is_bad_usage(tmp_path: Path, checkpoint: Path) -> None:
    """Exit code 2 before anything is computed."""
    (tmp_path / "5").mkdir()
    result = run("--checkpoint", checkpoint, "--output", tmp_path, "--version", 5)
    assert result.exit_code == 2
    assert "5 exists" in result.stderr


def test_a_file_in_place_of_the_models_folder(tmp_path: Path, checkpoint: Path) -> None:
    """Exit code 2 and what --output takes."""
    (tmp_path / "m").touch()
    result = run("--checkpoint", checkpoint, "--output", tmp_path / "m")
    assert result.exit_code == 2
    assert "is a file" in result.stderr


@pytest.mark.parametrize("missing", ["tensorflow", "transformers", "safetensors"])
def test_without_the_extra(missing: str, tmp_path: Path, checkpoint: Path) -> None:
    """Exit code 2 and the command that installs what is missing."""
    code = f"import sys; sys.modules[{missing!r}] = None; from consumer.cli import main; main(sys.argv[1:])"
    arguments = ["export", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "m")]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert missing in result.stderr
    assert "pip install 'rexstream[model]'" in result.stderr


def test_help_has_an_example() -> None:
    """The example is a line that can be copied."""
    result = run("--help")
    assert result.exit_code == 0
    assert "rexstream export --checkpoint checkpoint/ --output models/rexuninlu" in result.output
