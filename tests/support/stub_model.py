"""A model that needs no weights: cells that depend on a window's own tokens and on nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from cells import cells_of
from vocabulary import tokenizer_json

from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer, with_markers
from consumer.extraction.task import ExtractionLimits
from consumer.serving.protocol import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.extraction.window import Cells, Window
    from consumer.serving.protocol import ServingError

TOKENIZER_JSON = with_markers(tokenizer_json())
TOKENIZER = PromptTokenizer(TOKENIZER_JSON)


def engine(limits: ExtractionLimits | None = None) -> Engine:
    """An engine over the tests' own tokenizer."""
    return Engine(TOKENIZER, PromptLimits(), limits or ExtractionLimits(text_chars=50_000))


def stub_cells(window: Window, version: int = 1, tokenizer: PromptTokenizer = TOKENIZER) -> Cells:
    """One fact per type, at a place that the hash of the window's tokens decides; classification always votes.

    Another ``version`` finds other facts, as another model does. ``tokenizer`` is the one that made the window.
    """
    digest = hashlib.sha256(window.input_ids.tobytes() + window.segment.tobytes() + b"v" * (version - 1)).digest()
    start, end = window.text_start, window.length - 1
    types = [int(i) for i in np.flatnonzero(window.input_ids[:start] == tokenizer.type)]
    cells: dict[tuple[int, int], float] = {}
    if end > start and int(window.input_ids[start]) in (tokenizer.classify, tokenizer.multiclassify):
        cells[start, start] = 3.0
        for number, token in enumerate(types):
            cells[start, token] = cells[token, start] = 2.0 if digest[0] % len(types) == number else -2.0
        return cells_of(cells)
    for number, token in enumerate(types if end > start else ()):
        first = start + digest[number % 32] % (end - start)
        last = min(first + digest[-1] % 3, end - 1)
        cells[first, last] = cells[first, token] = cells[token, last] = 1.5
    return cells_of(cells)


class StubModel:
    """Implements ModelClient with ``stub_cells``. ``fail`` may name an error for a batch."""

    def __init__(self, fail: Callable[[Sequence[Window]], ServingError | None] = lambda _: None) -> None:
        self.fail = fail
        self.version = "1"
        self.batches: list[int] = []

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:  # noqa: ARG002
        """Answer at once."""
        self.batches.append(len(windows))
        if (error := self.fail(windows)) is not None:
            raise error
        return Answer(tuple(map(stub_cells, windows)), "stub", self.version, "serving_default", 0.001)

    async def ready(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to close."""
