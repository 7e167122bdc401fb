"""``rexstream completion`` in the shells themselves: keys are pressed in a terminal, and what comes is read."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from consumer.cli import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
PATIENCE_SECONDS = 60.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\x07|\x08")


class Terminal:
    """A shell in a terminal of 200 columns, in a folder with one file: ``worker.yaml``."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        environment = {"PATH": PATH, "HOME": str(folder), "TERM": "dumb", "COLUMNS": "200", "LC_ALL": "C.UTF-8"}
        self._shell = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=folder, start_new_session=True
        )
        os.close(slave)

    def press(self, keys: str, expected: str) -> str:
        """What comes after these keys, up to and with ``expected``."""
        os.write(self._master, keys.encode())
        seen, deadline = "", time.monotonic() + PATIENCE_SECONDS
        while expected not in seen:
            assert time.monotonic() < deadline, (keys, expected, seen)
            if select.select([self._master], [], [], 0.1)[0]:
                seen += _CONTROL.sub("", os.read(self._master, 65_536).decode(errors="replace"))
        return seen

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """``terminal(shell, *arguments)`` starts one."""
    (tmp_path / "worker.yaml").write_text("routes:\n- {input: shop.reviews, tasks: [ner], output: shop.facts}\n")
    opened: list[Terminal] = []

    def start(shell: str, *arguments: str) -> Terminal:
        path = shutil.which(shell)
        if path is None:
            pytest.skip(f"no {shell} on this machine")
        opened.append(Terminal([path, *arguments], tmp_path))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("rexstream dead-l", "rexstream dead-letters "),
        ("rexstream dead-letters repl", "rexstream dead-letters replay "),
        ("rexstream status --js", "rexstream status --json "),
        ("rexstream run --config wor", "rexstream run --config worker.yaml "),
        # Bash takes what stands around "=" for words of their own.
        ("rexstream run --set delivery.mo", "rexstream run --set delivery.mode="),
        ("rexstream run --set delivery.mode=ex", "rexstream run --set delivery.mode=exactly_once "),
        ("rexstream run --set routes.0.inl", "rexstream run --set routes.0.inline_schemas="),
        ("rexstream tail -c worker.yaml --topic shop.f", "rexstream tail -c worker.yaml --topic shop.facts "),
        ("rexstream extract --task sent", "rexstream extract --task sentiment "),
        ("rexstream completion z", "rexstream completion zsh "),
    ],
)
def test_bash_completes(typed: str, completed: str, terminal: Callable[..., Terminal]) -> None:
    """Commands, options, files, keys, their values, topics, tasks; a space follows where nothing is left to add."""
    bash = terminal("bash", "--norc", "--noprofile", "-i")
    # Keys that are pressed before the prompt is there would be the terminal's, not the shell's.
    bash.press("PS1='re''ady '; source <(rexstream completion bash)\n", "ready ")
    # The mark shows where the cursor is, and that all of the answer has come.
    assert bash.press(f"{typed}\t#", "#") == f"{completed}#"


def test_zsh_completes(terminal: Callable[..., Terminal]) -> None:
    """Where it is installed."""
    zsh = terminal("zsh", "-f", "-i")
    zsh.press("PS1='re''ady '; autoload -U compinit; compinit -D; source <(rexstream completion zsh)\n", "ready ")
    assert "rexstream dead-letters" in zsh.press("rexstream dead-l\t#", "#")


def test_fish_completes(tmp_path: Path) -> None:
    """Where it is installed; it can be asked what it would show."""
    if (fish := shutil.which("fish")) is None:
        pytest.skip("no fish on this machine")
    script = "rexstream completion fish | source; complete -C 'rexstream dead-l'"
    done = subprocess.run(
        [fish, "--no-config", "-c", script],
        env={"PATH": PATH, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("dead-letters\t")


def test_completing_a_command_imports_none() -> None:
    """The table of commands is enough: a key press must be answered at once."""
    script = "import sys, consumer.cli as c\ntry: c.main([])\nfinally: sys.stderr.write(' '.join(sys.modules))"
    environment = {**os.environ, "_REXSTREAM_COMPLETE": "bash_complete", "COMP_LINE": "rexstream ", "COMP_PIECE": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert {line.removeprefix("plain,") for line in done.stdout.splitlines()} == set(COMMANDS)
    loaded = {name for name in done.stderr.split() if name.startswith("consumer.")}
    assert loaded == {"consumer.cli", "consumer.cli.bash_completion", "consumer.exit_codes"}


def test_a_configuration_that_cannot_be_read_completes_nothing(tmp_path: Path) -> None:
    """And says nothing in the middle of a line."""
    (tmp_path / "bad.yaml").write_text("{")
    line = f"rexstream tail --config {tmp_path}/bad.yaml --topic "
    done = subprocess.run(
        [sys.executable, "-m", "consumer"],
        env={**os.environ, "_REXSTREAM_COMPLETE": "bash_complete", "COMP_LINE": line, "COMP_PIECE": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_an_unknown_shell_is_bad_usage() -> None:
    """Exit code 2, with those that there are."""
    found = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert found.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in found.stderr
