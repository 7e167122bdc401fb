"""The vocabulary: one token a character, the most frequent ones, and those of every name that is asked."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from collections.abc import Iterable

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ASCII: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
PUNCTUATION: Final = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_BATCH: Final = 2000


def vocabulary_of(texts: Iterable[str], required: str, size: int) -> list[str]:
    """The ``size`` most frequent characters of ``texts`` and all of ``required``, behind special tokens and ASCII.

    Letters, digits and other characters that BERT's splitter leaves inside words also stand with ``##``.
    """
    normalizer = _normalizer()
    counts: Counter[str] = Counter()
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            counts.update(normalizer.normalize_str("\n".join(batch)))
            batch = []
    counts.update(normalizer.normalize_str("\n".join(batch)))
    frequent = [char for char, _ in counts.most_common(size + 200) if not char.isspace()][:size]
    wanted = [char for char in normalizer.normalize_str(required) if not char.isspace()]
    words = [*SPECIAL, *ASCII, *(f"##{char}" for char in ASCII), *PUNCTUATION, *frequent, *wanted]
    joined = [f"##{char}" for char in dict.fromkeys(frequent + wanted) if _inside_words(char)]
    return list(dict.fromkeys(words + joined))


def tokenizer_of(vocabulary: list[str]) -> str:
    """``tokenizer.json``: BERT's WordPiece, lower-casing, every Chinese character a word. Without the markers."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))  # noqa: S106 - a token, no password
    tokenizer.normalizer = _normalizer(chinese=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    text: str = tokenizer.to_str()
    return text


def _normalizer(*, chinese: bool = False) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=chinese, strip_accents=None, lowercase=True)


def _inside_words(char: str) -> bool:
    """Whether BERT's splitter may leave this character in the middle of a word."""
    code = ord(char)
    chinese = 0x3400 <= code <= 0x9FFF or 0x20000 <= code <= 0x2FFFF or 0xF900 <= code <= 0xFAFF
    return code > 126 and not chinese and not unicodedata.category(char).startswith("P")
