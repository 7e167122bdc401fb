"""The worked examples of ``docs/tasks.md``: ``make docs`` writes the demo model's answers into them.

An example is a heading, which may name a shipped task, and two blocks of JSON: an event and the extractions of
its result.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "tasks.md"
_START = "## One example of each kind"
_EXAMPLE = re.compile(
    r"^### (?P<title>[^\n]*)\n(?:(?!^###?\s).)*?```json\n(?P<event>.*?)```\n\n```json\n(?P<answer>.*?)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Example:
    """``task``: the shipped one that the heading names; ``event``: what is asked; ``answer``: extractions as shown."""

    title: str
    task: str | None
    event: dict[str, Any]
    answer: list[list[dict[str, Any]]]

    @property
    def asked(self) -> dict[str, Any]:
        """The event as it is sent: by the task's name where it has one."""
        if self.task is None:
            return self.event
        return {"text": self.event["text"], "tasks": [self.task]}


def examples(page: str) -> list[Example]:
    """Those of the page, in its order."""
    found = []
    for match in _EXAMPLE.finditer(page[page.index(_START) :]):
        task = re.search(r": `(\w+)`$", match["title"])
        event, answer = json.loads(match["event"]), json.loads(match["answer"])
        found.append(Example(match["title"], task and task[1], event, answer))
    return found


def ask(shown: Sequence[Example], *arguments: str) -> list[dict[str, Any]]:
    """Results of ``rexstream extract``, one for each example; ``arguments`` say which model."""
    lines = "".join(json.dumps(example.asked) + "\n" for example in shown)
    command = [sys.executable, "-m", "consumer", "extract", *arguments]
    done = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def written(paths: list[list[dict[str, Any]]]) -> str:
    """A fact a line."""
    facts = [[json.dumps(fact, ensure_ascii=False) for fact in path] for path in paths]
    return "[" + ",\n ".join("[" + ",\n  ".join(path) + "]" for path in facts) + "]\n"


def main() -> None:
    """Ask the demo model, and write what it says."""
    page = FILE.read_text(encoding="utf-8")
    answers = iter(ask(examples(page)))
    start = page.index(_START)

    def answered(match: re.Match[str]) -> str:
        whole = match[0]
        at = match.start("answer") - match.start()
        return whole[:at] + written(next(answers)["extractions"]) + "```"

    FILE.write_text(page[:start] + _EXAMPLE.sub(answered, page[start:]), encoding="utf-8")


if __name__ == "__main__":
    main()
