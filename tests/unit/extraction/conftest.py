"""An engine over the tests' own tokenizer, and cells by name instead of by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from cells import cells_of
from vocabulary import tokenizer_json as stored

from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer, with_markers
from consumer.extraction.task import ExtractionLimits
from consumer.extraction.window import Cells, Window

Mark = Callable[[Window, Sequence[tuple[int, int, int]]], Cells]


@pytest.fixture(scope="session")
def tokenizer_json() -> bytes:
    return with_markers(stored())


@pytest.fixture(scope="session")
def tokenizer(tokenizer_json: bytes) -> PromptTokenizer:
    return PromptTokenizer(tokenizer_json)


@pytest.fixture(scope="session")
def engine(tokenizer: PromptTokenizer) -> Engine:
    return Engine(tokenizer, PromptLimits(), ExtractionLimits())


@pytest.fixture(scope="session")
def small_engine(tokenizer: PromptTokenizer) -> Callable[..., Engine]:
    """An engine with other limits on events."""

    def make(**limits: int) -> Engine:
        return Engine(tokenizer, PromptLimits(), ExtractionLimits(**limits))

    return make


@pytest.fixture(scope="session")
def mark(tokenizer: PromptTokenizer) -> Mark:
    """Cells that make ``(first, last, type)`` spans: text tokens and types are counted from 0 within the window."""

    def make(window: Window, spans: Sequence[tuple[int, int, int]]) -> Cells:
        types = np.flatnonzero(window.input_ids[: window.text_start] == tokenizer.type).tolist()
        cells: dict[tuple[int, int], float] = {}
        for first, last, kind in spans:
            start, end = window.text_start + first, window.text_start + last
            cells[start, end] = cells[start, types[kind]] = cells[types[kind], end] = 2.0
        return cells_of(cells)

    return make
