"""A tokenizer for tests: BERT's, over a vocabulary that is computed here.

Tests that count tokens or compare ids use it, so that they hold whatever the demo model's vocabulary is.
"""

from __future__ import annotations

import functools
import itertools
import json
import string

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def words() -> list[str]:
    """7,072 distinct entries: special tokens, printable ASCII, 00 to 37 (other numbers are two pieces), rests, GB 2312.

    GB 2312 has its symbols in rows 1 and 3 and its characters in rows 16 to 87; a code is two bytes from 0xA1 on.
    """
    plain = [char for char in map(chr, range(0x21, 0x7F)) if not char.isupper()]
    numbers = [f"{number:02d}" for number in range(38)]
    rests = ["##" + char for char in string.ascii_lowercase + string.digits]
    codes = itertools.product([1, 3, *range(16, 88)], range(1, 95))
    characters = [bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312", "ignore") for row, cell in codes]
    return list(dict.fromkeys([*SPECIAL, *plain, *numbers, *rests, *(char.lower() for char in characters if char)]))


@functools.cache
def tokenizer_json() -> bytes:
    """``tokenizer.json`` as a checkpoint holds it: lower-casing WordPiece, without the markers."""
    vocabulary = {word: number for number, word in enumerate(words())}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    cls, sep = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    last = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[name], "content": name, **flags} for name in SPECIAL],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, second, last],
            "special_tokens": {
                name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    return json.dumps(content, ensure_ascii=False).encode()
