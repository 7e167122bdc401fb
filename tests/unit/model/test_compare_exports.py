"""``rexstream compare`` with models of this machine: a checkpoint, and what was exported of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from annotated_lines import written
from click.testing import CliRunner, Result

from consumer.cli.compare import command
from consumer.cli.export import command as export

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("logging_as_before")]

REVIEWS = [{"text": "七丁万丈下"}, {"text": "一丁" * 30}, {"text": "上不与"}]


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.fixture(scope="module")
def checkpoint(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = micro.write_with_tokenizer(tmp_path_factory.mktemp("checkpoint"))
    return folder


def test_an_export_answers_as_its_checkpoint_does(tmp_path: Path, checkpoint: Path) -> None:
    """Through a server and in the process: agreement 1."""
    output = tmp_path / "micro"
    arguments = ["--checkpoint", checkpoint, "--output", output, "--version", 3, "--max-tokens", 512]
    assert CliRunner().invoke(export, list(map(str, arguments))).exit_code == 0
    (output / "3" / "assets.extra" / "tf_serving_warmup_requests").unlink()  # thirty calls that nothing here needs
    data = written(tmp_path, *REVIEWS)
    given = ("--input", data, "--task", "product_features", "--old-export", output / "3", "--json", "-")
    result = compare(*given, "--new-checkpoint", checkpoint, "--min-agreement", 1)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["models"]["old"] == [{"name": "micro", "version": "3", "signature": "serving_default"}]
    assert found["agreement"][0]["both"] > 0


def test_a_folder_that_does_not_load_is_2(tmp_path: Path) -> None:
    """With the side, and why."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid x\nsize 9\n"
    )
    result = compare(
        *("--input", written(tmp_path, *REVIEWS), "--task", "product_features", "--old-export", tmp_path / "m" / "1")
    )
    assert result.exit_code == 2
    assert "old: " in result.stderr
    assert "is a Git LFS pointer" in " ".join(result.stderr.replace("│", "").split())
