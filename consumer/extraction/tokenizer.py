"""The checkpoint's WordPiece tokenizer, with and without literal special tokens in the text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from consumer.extraction.window import IntArray

PREFIX: Final = "[PREFIX]"
TYPE: Final = "[TYPE]"
CLASSIFY: Final = "[CLASSIFY]"
MULTICLASSIFY: Final = "[MULTICLASSIFY]"
MARKERS: Final = (PREFIX, TYPE, CLASSIFY, MULTICLASSIFY)
"""Appended by the reference in this order to whatever the checkpoint's tokenizer holds."""

_BERT: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def with_markers(tokenizer_json: bytes) -> bytes:
    """A ``tokenizer.json`` in which the BERT special tokens and the four markers are special tokens.

    Stored ids stay; absent markers get the next free ids in the order of MARKERS. A file that needs no change comes
    back byte for byte. Raises ValueError for what is not a tokenizer.
    """
    tokenizer = _load(tokenizer_json)
    wanted = [token for token in _BERT if tokenizer.token_to_id(token) is not None] + list(MARKERS)
    stored: dict[str, Any] = json.loads(tokenizer_json)
    added = {entry["content"]: entry for entry in stored.get("added_tokens") or []}
    used = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    changed = False
    for token in wanted:
        known = tokenizer.token_to_id(token)
        if known is None:
            known = used = used + 1
        entry = {"id": known, "content": token, **flags}
        if added.get(token) != entry:
            added[token] = entry
            changed = True
    if not changed:
        return tokenizer_json
    stored["added_tokens"] = sorted(added.values(), key=lambda entry: int(entry["id"]))
    return json.dumps(stored, ensure_ascii=False).encode()


class Encoded(NamedTuple):
    """Tokens of one string. ``ids`` int32[n]; ``offsets`` n pairs of code points into the string, half-open."""

    ids: IntArray
    offsets: list[tuple[int, int]]


class PromptTokenizer:
    """Encodes pieces of a prompt; never adds ``[CLS]`` or ``[SEP]`` itself.

    ``special=False`` takes marker literals in a text for ordinary characters, ``special=True`` turns them into marker
    tokens as the reference does. Safe to share between threads.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        """Raises ValueError when a special token is missing; ``with_markers`` adds the four markers."""
        self.json = tokenizer_json
        self._matching = _load(tokenizer_json)
        self._literal = _load(tokenizer_json)
        self._literal.encode_special_tokens = True
        self.cls = self._id("[CLS]")
        self.sep = self._id("[SEP]")
        self.pad = self._id("[PAD]")
        self.prefix = self._id(PREFIX)
        self.type = self._id(TYPE)
        self.classify = self._id(CLASSIFY)
        self.multiclassify = self._id(MULTICLASSIFY)

    def encode(self, text: str, *, special: bool = False) -> Encoded:
        """Tokens and offsets of a text that holds no lone surrogate (see ``encodable``)."""
        encoding = (self._matching if special else self._literal).encode(text, add_special_tokens=False)
        return Encoded(np.array(encoding.ids, dtype=np.int32), encoding.offsets)

    def ids(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Token ids only."""
        return tuple((self._matching if special else self._literal).encode(text, add_special_tokens=False).ids)

    def _id(self, token: str) -> int:
        found: int | None = self._matching.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no {token} token; pass its tokenizer.json through with_markers first")
        return found


def _load(tokenizer_json: bytes) -> Any:
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the binding raises bare Exception
        raise ValueError(f"not a tokenizer.json ({error}); take the file of a fast tokenizer") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
