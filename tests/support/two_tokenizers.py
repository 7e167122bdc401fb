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


def another_tokenizer(more: int) -> bytes:
    """Its vocabulary has ``more`` entries in front of all words."""
    content = json.loads(tokenizer_json())
    known = content["model"]["vocab"]
    shifted = {word: number + more * (number >= len(SPECIAL)) for word, number in known.items()}
    content["model"]["vocab"] = shifted | {f"[more{n}]": len(SPECIAL) + n for n in range(more)}
    return with_markers(json.dumps(content, ensure_ascii=False).encode())


ANOTHER_TOKENIZER = another_tokenizer(7)


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
