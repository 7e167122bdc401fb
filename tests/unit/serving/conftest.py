"""A bundle with a tokenizer of a few words."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from consumer.extraction.prompts import PromptLimits, PromptTokenizer, contract_hash, with_markers
from consumer.serving.bundle import Bundle


@pytest.fixture(scope="session")
def tokenizer_json() -> bytes:
    """The file of a WordPiece tokenizer with the BERT tokens and the markers."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "杯", "子", "很", "轻"]
    model = WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    return with_markers(Tokenizer(model).to_str().encode())


@pytest.fixture(scope="session")
def bundle(tokenizer_json: bytes) -> Bundle:
    """Four cells a window, so that overflowing is easy."""
    limits = PromptLimits()
    return Bundle(PromptTokenizer(tokenizer_json), limits, 4, contract_hash(tokenizer_json, limits, 4))
