"""Characters that a BERT tokenizer makes one token of, whatever stands beside them: nearly all of a Chinese review.

Such text needs no tokenizer library, only a table (``PromptTokenizer`` reads it). Why that gives the same tokens:

- ``BertNormalizer`` puts spaces around every ideograph, ``BertPreTokenizer`` cuts at spaces and makes every punctuation
  mark a word of its own, and WordPiece looks each word up by itself. So a text can be cut before and behind these
  characters, and what is between them can be tokenised alone.
- The normalizer maps each character by itself, but for one rule: decomposition (NFD) sorts the marks behind a letter by
  their combining class. A text with a character that has a class, or may have one in another version of Unicode, is
  left to the library as a whole.
- Every character of the table was tokenised by the library between two letters: its id is the library's answer.
- ASCII letters and digits that stand together are one word, and all that is done to them before WordPiece is to lower
  their case. So the library's model is asked about the word alone: that takes a sixth of the time of an ``encode``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

IDEOGRAPHS: Final = range(0x4E00, 0xA000)
SPACES: Final = " \t\n\r\u3000"
SPACE: Final = -1
"""No token; what stands before and behind it are two words."""
RUN: Final = -1 - (1 << 24)
"""May be part of a longer word, or of none: the library is asked about all such characters that stand together."""
LIBRARY: Final = -1 - (2 << 24)
"""The library is asked about the whole text."""

# The highest byte tells these three from each other and from token ids, which have less than 24 bits: bytes are
# searched in a tenth of the time that numpy takes for as many numbers. Little-endian, as all that gRPC carries.
KINDS: Final = slice(3, None, 4)
UTF_32: Final = np.dtype("<u4")  # made once: its name takes longer to read than a text
SPACE_KIND, RUN_KIND, LIBRARY_KIND = (int(np.array(kind, "<i4").tobytes()[3]) for kind in (SPACE, RUN, LIBRARY))
FIRST_ID: Final = np.array(0, np.int32)
find_runs: Final = re.compile(re.escape(bytes([RUN_KIND])) + b"+").finditer

Run = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""What stands in the places of a run's characters: its tokens where they begin, SPACE elsewhere; and where those tokens
begin and end that are not one character."""

CACHED_RUNS: Final = 2048
"""Of 39,000 in 52,000 shop reviews (2, 100, XP) 93 of 100 were among the 2,048 most frequent."""
CACHED_RUN_CHARS: Final = 32
CHARACTERS_A_RUN: Final = 8
"""A text of more runs goes to the library as a whole: a run that the library has to encode takes it as long as four to
eight characters."""

_SIZE: Final = 0x20000
"""Planes 0 and 1, where emoji are; what is above stands in no review, and the last entry is true for it, too."""
_KNOWN: Final = (range(0x3400), range(0xE000, 0x10000), range(0x1F000, 0x1FB00))
"""Where classes are looked up, beside the ideographs: Latin to kana, private use, full-width letters, emoji."""
_AT_ONCE: Final = 256
"""Characters that the library is asked about in one text: 2,048 at once take 4 MB, which stay, and no less time."""


def character_ids(tokenizer: Any) -> NDArray[np.int32] | None:
    """Token id by code point, or SPACE, RUN, LIBRARY; the last entry is that of all code points above. Read-only.

    ``tokenizer`` takes literals of special tokens for ordinary text. None for one of another shape than BERT's.
    """
    stored = json.loads(tokenizer.to_str())  # not the file as it is: older ones leave out what has a default
    if not _is_bert(stored):
        return None
    table = _classes().copy()
    words = [word for word in stored["model"]["vocab"] if len(word) == 1 and _stands_alone(word)]
    words += SPACES
    for first in range(0, len(words), _AT_ONCE):
        some = words[first : first + _AT_ONCE]
        for word, token in zip(some, _tokens_between_letters(tokenizer, some), strict=True):
            if token is not None:
                table[ord(word)] = token
    table.flags.writeable = False
    return table


def positions(count: int) -> NDArray[np.int32]:
    """Offsets, int32[count, 2], of tokens that are a character each."""
    first = np.arange(count, dtype=np.int32)
    return np.stack((first, first + 1), axis=1)


POSITIONS: Final = positions(16_384)
"""Those of any text but the longest, which share them. Read-only."""
POSITIONS.flags.writeable = False


def _is_bert(stored: dict[str, Any]) -> bool:
    """Whether the proof above holds. Its other settings (lower case, accents, cleaning) do not matter to it."""
    normalizer, words, model = stored["normalizer"] or {}, stored["pre_tokenizer"] or {}, stored["model"]
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["handle_chinese_chars"]
        and words.get("type") == "BertPreTokenizer"
        and model["type"] == "WordPiece"
        and model["unk_token"] in model["vocab"]
        # Others are found in the text before anything else is done to it.
        and all(token["special"] for token in stored["added_tokens"])
    )


def _stands_alone(character: str) -> bool:
    return ord(character) < _SIZE and (
        ord(character) in IDEOGRAPHS
        or unicodedata.category(character).startswith("P")
        # Signs such as + and $, which BERT takes for punctuation.
        or (character.isascii() and not character.isalnum() and character.isprintable() and character != " ")
    )


@cache
def _classes() -> NDArray[np.int32]:
    """RUN for what has no combining class, LIBRARY for the rest. No Unicode version changes an assigned character's."""
    table = np.full(_SIZE, LIBRARY, np.int32)
    table[IDEOGRAPHS.start : IDEOGRAPHS.stop] = RUN
    for known in _KNOWN:
        for code in known:
            character = chr(code)
            if not unicodedata.combining(character) and unicodedata.category(character) != "Cn":
                table[code] = RUN
    return table


def _tokens_between_letters(tokenizer: Any, characters: Sequence[str]) -> Iterator[int | None]:
    """The id of each character that is a token of its own between two letters, SPACE where it is none and parts them.

    None for all others.
    """
    encoding = tokenizer.encode("".join(f"a{character}a\n" for character in characters), add_special_tokens=False)
    found = defaultdict(list)  # tokens by the code points that they are
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        found[range(start, end)].append(token)
    letter = tokenizer.encode("a", add_special_tokens=False).ids
    for place in range(1, 4 * len(characters), 4):
        own = found.get(range(place, place + 1), [])
        if found.get(range(place - 1, place)) != letter or found.get(range(place + 1, place + 2)) != letter:
            yield None  # joined with a letter, or removed
        else:
            yield own[0] if len(own) == 1 else None if own else SPACE
