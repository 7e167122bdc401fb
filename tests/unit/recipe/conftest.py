"""Reviews and a tokenizer for the recipe's samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from recipe.naming import Naming
from recipe.rows import read_rows
from recipe.samples import Layout
from recipe.vocabulary import tokenizer_of, vocabulary_of

from consumer.extraction.prompts import PromptTokenizer, with_markers

if TYPE_CHECKING:
    from recipe.rows import Row

FOLDER = Path(__file__).parents[3] / "deploy/demo-model"


@pytest.fixture(scope="package")
def written() -> list[Row]:
    """The reviews that were written for the recipe."""
    return read_rows(FOLDER / "written.jsonl")


@pytest.fixture(scope="package")
def layout(written: list[Row]) -> Layout:
    """Of a vocabulary made for them."""
    words = vocabulary_of((row.text for row in written), Naming.read().characters(), 2500)
    return Layout(PromptTokenizer(with_markers(tokenizer_of(words).encode())))
