"""A checkpoint's tokenizer, reduced to the one file that the client reads, and what client and graph agree on."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from consumer.config.git_lfs import lfs_pointer_at
from consumer.extraction.prompts import (
    MARKERS,
    MAX_CELLS_PER_WINDOW,
    PromptLimits,
    PromptTokenizer,
    contract_hash,
    with_markers,
)
from consumer.model.encoder_config import CheckpointError, EncoderConfig
from consumer.serving.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "spm.model")


def read_bundle(folder: Path, config: EncoderConfig) -> Bundle:
    """Load a checkpoint folder's tokenizer as Hugging Face does, from local files only, and append absent markers.

    A folder with ``vocab.txt`` and ``tokenizer_config.json`` is enough; its own ``tokenizer.json`` is kept byte for
    byte where it means the same. Raises CheckpointError when there is no fast tokenizer, or when an id has no row in
    the word embedding.
    """
    plain = _load(folder)
    try:
        complete = with_markers(plain)
        file = folder / "tokenizer.json"
        if file.is_file():
            # Its bytes, and with them the contract, do not depend on the release of transformers that loaded it.
            stored = with_markers(file.read_bytes())
            if Tokenizer.from_str(stored.decode()).to_str() == Tokenizer.from_str(complete.decode()).to_str():
                complete = stored
        tokenizer = PromptTokenizer(complete)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    _check_ids(folder, config, plain, complete)
    limits = PromptLimits()
    if config.position_biased_input and config.max_position_embeddings < limits.max_len:
        raise CheckpointError(
            f"{folder / 'config.json'}: max_position_embeddings is {config.max_position_embeddings}; "
            f"supported: at least {limits.max_len}, the longest window, because position_biased_input is true"
        )
    return Bundle(tokenizer, limits, MAX_CELLS_PER_WINDOW, contract_hash(complete, limits, MAX_CELLS_PER_WINDOW))


def _check_ids(folder: Path, config: EncoderConfig, plain: bytes, complete: bytes) -> None:
    tokenizer = Tokenizer.from_str(complete.decode())
    found: list[Any] = [tokenizer.token_to_id(marker) for marker in MARKERS]
    expected = list(range(config.vocab_size, config.vocab_size + len(MARKERS)))
    before = Tokenizer.from_str(plain.decode())
    if all(before.token_to_id(marker) is None for marker in MARKERS) and found != expected:
        raise CheckpointError(
            f"{folder}: the tokenizer ends at id {found[0] - 1}, but config.json has vocab_size {config.vocab_size}: "
            f"the appended markers would get the ids {found} instead of {expected}; "
            "tokenizer files and weights are of different models"
        )
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest > expected[-1]:
        raise CheckpointError(
            f"{folder}: the tokenizer's highest id is {highest}, the word embedding ends at {expected[-1]} "
            f"(vocab_size {config.vocab_size} and the markers); tokenizer files and weights are of different models"
        )


def _load(folder: Path) -> bytes:
    wanted = "expected tokenizer.json, or vocab.txt and tokenizer_config.json"
    # Without this check transformers makes up an empty tokenizer for the model type.
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / name).is_file() for name in ("vocab.txt", "tokenizer_config.json")
    ):
        raise CheckpointError(f"{folder}: there is no tokenizer; {wanted}")
    if (pointer := lfs_pointer_at(folder / name for name in _FILES)) is not None:
        raise CheckpointError(pointer)
    # "PyTorch was not found" is no news to somebody who works with TensorFlow.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"reading a tokenizer needs {error.name}, which is not installed: pip install 'rexstream[model]'"
        ) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # it raises OSError, ValueError, KeyError, ImportError, ... for what it cannot read
        raise CheckpointError(f"{folder}: the tokenizer cannot be loaded ({error}); {wanted}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} is not a fast tokenizer, which offsets need; {wanted}"
        )
    stored = json.loads(tokenizer.backend_tokenizer.to_str())
    # Truncation and padding are the engine's business.
    return json.dumps({**stored, "truncation": None, "padding": None}, ensure_ascii=False).encode()
