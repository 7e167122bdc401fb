"""Engines and helpers for golden vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vocabulary import tokenizer_json

from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer, with_markers
from consumer.extraction.task import ExtractionLimits

REPOSITORY = Path(__file__).resolve().parents[2]

MakeEngine = Callable[[bytes], Engine]


@pytest.fixture(scope="session")
def make_engine() -> MakeEngine:
    def make(stored: bytes) -> Engine:
        tokenizer = PromptTokenizer(with_markers(stored))
        return Engine(tokenizer, PromptLimits(), ExtractionLimits())

    return make


@pytest.fixture(scope="session")
def own_engine(make_engine: MakeEngine) -> Engine:
    return make_engine(tokenizer_json())


@pytest.fixture(scope="session")
def golden() -> Path:
    """Golden vectors of the reference, which lie beside a checkout of the project and are not part of it."""
    folder = REPOSITORY.parent / "shared" / "reference" / "golden"
    if not folder.is_dir():
        pytest.skip("the reference's golden vectors (../shared/reference/golden) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def expand() -> Callable[[list[list[int]]], list[int]]:
    """Run lengths ``[*value, count]`` to one int a token; a pair ``p, t`` becomes ``p * 256 + t``."""

    def run(runs: list[list[int]]) -> list[int]:
        expanded: list[int] = []
        for *value, count in runs:
            expanded += [value[0] if len(value) == 1 else value[0] * 256 + value[1]] * count
        return expanded

    return run
