"""A second tokenizer, whose ids are others, and what a version of the stub model alone finds in a review."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from stub_model import TOKENIZER_JSON, stub_cells
from vocabulary import SPECIAL, tokenizer_json

from consumer.config.task_files import load_tasks
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer, with_markers
from consumer.extraction.task import ExtractionLimits

if TYPE_CHECKING:
    from consumer.extraction.task import Task

MORE = 7
"""Entries that the second vocabulary has in front of all words."""


def _another() -> bytes:
    content = json.loads(tokenizer_json())
    known = content["model"]["vocab"]
    shifted = {word: number + MORE * (number >= len(SPECIAL)) for word, number in known.items()}
    content["model"]["vocab"] = shifted | {f"[more{n}]": len(SPECIAL) + n for n in range(MORE)}
    return with_markers(json.dumps(content, ensure_ascii=False).encode())


ANOTHER_TOKENIZER = _another()


@functools.cache
def _tokenizer(tokenizer: bytes) -> PromptTokenizer:
    return PromptTokenizer(tokenizer)


@functools.cache
def _engine(tokenizer: bytes) -> Engine:
    return Engine(_tokenizer(tokenizer), PromptLimits(), ExtractionLimits())


@functools.cache
def _tasks() -> dict[str, Task]:
    return dict(load_tasks(()))


def facts_alone(text: str, task: str, version: int, tokenizer: bytes = TOKENIZER_JSON) -> Any:
    """What that version finds, asked window by window and by nothing else."""
    extraction = _engine(tokenizer).start(text, _tasks()[task])
    while not extraction.finished:
        for window in extraction.windows:
            extraction.read(stub_cells(window, version, _tokenizer(tokenizer)))
    return extraction.result()
