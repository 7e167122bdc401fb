"""The limits an exported model and its client must agree on, and the hash that tells whether they do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

MAX_CELLS_PER_WINDOW = 256
"""K: cells returned per window by the compact signature. A 256-token hint has at most 126 types, so the 1 + 2T cells
that classification must always see fit."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Token limits of one window (specification section 1; the defaults are the reference's)."""

    max_len: int = 512
    stride_len: int = 32
    hint_max_len: int = 256
    prefix_max_len: int = 125
    type_max_len: int = 125


def contract_hash(tokenizer_json: bytes, limits: PromptLimits, cells_per_window: int = MAX_CELLS_PER_WINDOW) -> int:
    """Signed 32-bit hash of all that client and graph must share: tokenizer, limits and K.

    The graph returns it with every answer, so a worker notices a model whose tokenizer it does not have.
    """
    digest = hashlib.sha256()
    digest.update(hashlib.sha256(tokenizer_json).digest())
    digest.update(json.dumps({**asdict(limits), "k": cells_per_window}, sort_keys=True).encode())
    return int.from_bytes(digest.digest()[:4], "big", signed=True)
