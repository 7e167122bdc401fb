"""What the stub model says of a text, computed in this process: no batch, no server, no Kafka."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stub_model import engine, stub_cells

from consumer.config.task_files import load_tasks

_ENGINE = engine()
_TASKS = load_tasks()


def extractions(text: str, task: str, version: int = 1) -> list[list[dict[str, Any]]]:
    """The ``extractions`` of a result of this version of the model, as its JSON holds them."""
    extraction = _ENGINE.start(text, _TASKS[task])
    while not extraction.finished:
        extraction.advance([stub_cells(window, version) for window in extraction.windows])
    return [[asdict(fact) for fact in path] for path in extraction.result().paths]
