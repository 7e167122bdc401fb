"""Writes configuration files, and compares the commands on every configuration that a test here finds refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import consumer.config.loading
from consumer.cli import cli
from consumer.config.problems import ConfigError
from consumer.config.task_files import load_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str) -> str:
        path = tmp_path / "rexstream.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_file


_TASKS = load_tasks()


@pytest.fixture(autouse=True)
def _commands_refuse_the_same(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``run``, ``check`` and ``config print`` end with 2 for the first configuration that the test finds refused."""
    load = consumer.config.loading.load
    refused: list[tuple[str | None, bytes | None, dict[str, str], tuple[str, ...]]] = []

    def recording(path: str | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Any:
        try:
            return load(path, environ, overrides)
        except ConfigError:
            if not any("\0" in value for value in environ.values()):  # which no environment can hold
                content = Path(path).read_bytes() if path and Path(path).is_file() else None
                refused.append((path, content, dict(environ), tuple(overrides)))
            raise

    monkeypatch.setattr(consumer.config.loading, "load", recording)
    yield
    monkeypatch.setattr(consumer.config.loading, "load", load)
    # The shipped ones are read once, and not three times for every test.
    monkeypatch.setattr(consumer.config.loading, "load_tasks", lambda dirs: load_tasks(dirs) if dirs else _TASKS)
    for name in [name for name in os.environ if name.startswith("REXSTREAM_")]:
        monkeypatch.delenv(name)
    for path, content, environ, overrides in refused[:1]:
        if path is not None and content is not None:  # which the test may have written anew
            Path(path).write_bytes(content)
        given = [*(("--config", path) if path else ()), *(part for each in overrides for part in ("--set", each))]
        for command in (["run"], ["check"], ["config", "print"]):
            result = CliRunner().invoke(cli, [*command, *given], env=environ)
            assert result.exit_code == 2, (command, given, environ, result.output)
