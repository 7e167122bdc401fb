from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabulary import tokenizer_json as raw

from consumer.events import encodable
from consumer.extraction.prompts import MARKERS, PromptTokenizer, with_markers


def test_markers_get_the_next_free_ids_in_order() -> None:
    """Four new special tokens follow the vocabulary; what was stored keeps its id."""
    before = {entry["content"]: entry["id"] for entry in json.loads(raw())["added_tokens"]}
    size = len(json.loads(raw())["model"]["vocab"])
    after = {entry["content"]: entry["id"] for entry in json.loads(with_markers(raw()))["added_tokens"]}
    assert after == before | {marker: size + index for index, marker in enumerate(MARKERS)}


def test_a_complete_file_comes_back_byte_for_byte() -> None:
    """The contract hash must not depend on how often a file was completed."""
    complete = with_markers(raw())
    assert with_markers(complete) == complete


def test_stored_markers_keep_their_ids_and_become_special() -> None:
    """A published tokenizer that already holds a marker as an ordinary added token is only mended."""
    stored = json.loads(raw())
    flags = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": True, "special": False}
    stored["added_tokens"].append({"id": len(stored["model"]["vocab"]), "content": "[TYPE]", **flags})
    tokenizer = PromptTokenizer(with_markers(json.dumps(stored).encode()))
    assert tokenizer.type == len(stored["model"]["vocab"])
    assert tokenizer.prefix == tokenizer.type + 1
    assert tokenizer.type not in tokenizer.ids("新 [TYPE] 款")


def test_bert_tokens_are_registered_when_the_file_lists_none() -> None:
    """Some tokenizer.json files list no added tokens; the reference's loader matches [SEP] all the same."""
    stored = json.loads(raw())
    stored["added_tokens"] = []
    tokenizer = PromptTokenizer(with_markers(json.dumps(stored).encode()))
    assert tokenizer.ids("好[SEP]", special=True)[-1] == tokenizer.sep
    assert tokenizer.sep not in tokenizer.ids("好[SEP]")


def test_literals_are_tokens_only_where_that_is_asked_for() -> None:
    """One token with the literal's offsets, or ordinary pieces."""
    tokenizer = PromptTokenizer(with_markers(raw()))
    special = tokenizer.encode("赠[CLASSIFY]品", special=True)
    assert special.ids.tolist()[1] == tokenizer.classify
    assert special.offsets.tolist() == [[0, 1], [1, 11], [11, 12]]
    literal = tokenizer.encode("赠[CLASSIFY]品")
    assert tokenizer.classify not in literal.ids.tolist()
    assert literal.offsets[-1].tolist() == [11, 12]


def test_the_vocabulary_that_only_the_reference_needs_is_not_loaded_before() -> None:
    """A worker needs it for no event, and it is as large as the other."""
    tokenizer = PromptTokenizer(with_markers(raw()))
    tokenizer.encode("赠[CLASSIFY]品 ab")
    tokenizer.ids("赠[CLASSIFY]品 ab")
    assert "_matching" not in vars(tokenizer)
    tokenizer.encode("赠", special=True)
    assert "_matching" in vars(tokenizer)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]"])
def test_what_is_not_a_tokenizer_is_named(content: bytes) -> None:
    """A wrong file fails with ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        with_markers(content)


def test_missing_markers_are_named_with_the_fix() -> None:
    """The error says which token and which function."""
    with pytest.raises(ValueError, match=r"\[PREFIX\].*with_markers"):
        PromptTokenizer(raw())


def test_truncation_in_the_file_is_ignored() -> None:
    """Windows are the engine's business."""
    stored = json.loads(raw())
    stored["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    assert len(PromptTokenizer(with_markers(json.dumps(stored).encode())).ids("一二三四五六七八九")) == 9


@given(st.text(st.characters(), max_size=50))
def test_encodable_text_has_the_same_length_and_no_surrogates(text: str) -> None:
    """One code point for one: offsets stay true."""
    changed = encodable(text)
    changed.encode()
    assert len(changed) == len(text)
    assert all(new == old or 0xD800 <= ord(old) <= 0xDFFF for new, old in zip(changed, text, strict=True))
