"""``rexstream config print``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from consumer.cli import cli
from consumer.config.tree import Config

if TYPE_CHECKING:
    from click.testing import Result


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("REXSTREAM_"):
            monkeypatch.delenv(name)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(cli, ["config", "print", *arguments])


def test_the_defaults_are_printed_without_a_word_on_their_origin() -> None:
    """The output is YAML that holds every key, but for the sections whose absence is their default."""
    result = run()
    assert result.exit_code == 0
    assert "#" not in result.stdout
    assert Config.model_validate_json(Config().model_dump_json()) == Config()
    printed = yaml.safe_load(result.stdout)
    expected = yaml.safe_load(yaml.safe_dump(Config().model_dump(mode="json")))
    assert expected["model"].pop("tls") is None
    assert expected["model"].pop("canary") is None
    assert printed == expected


def test_each_changed_value_says_where_it_came_from(tmp_path: Path) -> None:
    """A line of the file, a variable or a flag."""
    path = tmp_path / "my.yaml"
    path.write_text("kafka:\n  group_id: g\nroutes:\n  - input: a\n    tasks: [ner, event]\n", encoding="utf-8")
    result = run("--config", str(path), "--set", "limits.facts=5", REXSTREAM_MODEL__NAME="m")
    lines = [line for line in result.stdout.splitlines() if "#" in line]
    assert lines == [
        "  group_id: g  # my.yaml:2",
        "- input: a  # my.yaml:4",
        "  tasks: [ner, event]  # my.yaml:5",
        "  name: m  # REXSTREAM_MODEL__NAME",
        "  facts: 5  # --set limits.facts",
    ]


def test_what_is_printed_can_be_read_again(tmp_path: Path) -> None:
    """Printing the printed configuration changes nothing."""
    path = tmp_path / "my.yaml"
    odd = ["--set", "kafka.group_id=a: 'b' # c", "--set", "model.label=null", "--set", "kafka.client.client.id=12"]
    path.write_text(run(*odd, "--set", "routes.1.input=b", "--set", "routes.1.tasks=[ner]").stdout, encoding="utf-8")
    again = run("--config", str(path)).stdout
    assert yaml.safe_load(again) == yaml.safe_load(path.read_text("utf-8"))
    assert yaml.safe_load(again)["kafka"]["group_id"] == "a: 'b' # c"
    assert yaml.safe_load(again)["kafka"]["client"]["client.id"] == "12"


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    """Neither as a setting, nor in a URL, nor in the comment."""
    path = tmp_path / "my.yaml"
    path.write_text(
        "kafka: {client: {sasl.password: hunter2, ssl.key.password: hunter2}, registry: {url: 'http://u:hunter2@h:1'}}\n",
        encoding="utf-8",
    )
    result = run("--config", str(path))
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert result.stdout.count("(hidden)") == 3


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """Containers are configured by their environment."""
    path = tmp_path / "my.yaml"
    path.write_text("model: {name: m}\n", encoding="utf-8")
    assert "name: m  # my.yaml:1" in run(REXSTREAM_CONFIG=str(path)).stdout


def test_a_bad_configuration_ends_with_exit_code_2() -> None:
    """The problems are on standard error, and nothing is printed."""
    result = run("--set", "kafka.grup_id=x")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "did you mean kafka.group_id?" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_is_one_line_and_no_traceback() -> None:
    """Whatever the command writes; exit code 1."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "consumer", "config", "print"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: what this command writes finds no room: No space left on device\n",
    )
