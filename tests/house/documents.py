"""What the documents show: blocks of code, the shell commands in them, and the commands of this project among those."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAMS = ("rexstream", ".venv/bin/rexstream")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``page`` is relative to the checkout, ``language`` empty where none is named."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every document of the project, but for those of the tests."""
    folders = ("docs", "deploy", "examples", "schemas")
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))])


def blocks(page: Path) -> list[Block]:
    """In the page's order."""
    name = page.relative_to(ROOT).as_posix()
    return [Block(name, *found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(block: Block) -> list[str]:
    """Commands of a block of shell, without comments; what goes on over several lines is one."""
    found: list[str] = []
    for line in block.text.splitlines():
        line = re.sub(r"(^|\s+)# .*$", "", line).rstrip()
        if not line:
            continue
        goes_on = found and (
            found[-1].endswith(("|", "\\")) or (found[-1].startswith("for ") and "done" not in found[-1])
        )
        if goes_on:
            found[-1] = f"{found[-1]}\n{line}"
        else:
            found.append(line)
    return found


def invocations(command: str) -> Iterator[list[str]]:
    """Arguments of each call of ``rexstream`` in a shell command, also behind the ``--`` of kubectl."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if not re.fullmatch(r"[|&;()<>]+", token):
            words.append(token)
            continue
        if words[:1] == ["kubectl"] and "--" in words:
            words = words[words.index("--") + 1 :]
        while words and re.match(r"\w+=", words[0]):  # variables of this command
            words.pop(0)
        if words and words[0] in _PROGRAMS:
            yield words[1:]
        words = []


def named_in_prose(text: str) -> list[str]:
    """What stands between backticks and begins with ``rexstream``, optional parts too; placeholders stay."""
    prose = _BLOCK.sub("", text)
    return [
        found.replace("[", "").replace("]", "")
        for found in re.findall(r"`((?:\.venv/bin/)?rexstream [a-z][^`]*)`", prose)
    ]
