"""Text that is encoded by the table of characters has the library's tokens, to the last offset."""

from __future__ import annotations

import json
import string
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from vocabulary import tokenizer_json as raw

from consumer.extraction.characters import LIBRARY, RUN, SPACE, character_ids
from consumer.extraction.prompts import PromptTokenizer, with_markers

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[3]
DEMO = (ROOT / "deploy/demo-model/tokenizer.json").read_bytes()
NOT_LOWERED = {"lowercase": False, "strip_accents": False, "clean_text": False}
ACCENTS_KEPT = {"strip_accents": False}


def _changed(normalizer: dict[str, bool], words: Iterable[str] = "") -> bytes:
    content = json.loads(raw())
    content["normalizer"].update(normalizer)
    content["model"]["vocab"].update({word: len(content["model"]["vocab"]) + n for n, word in enumerate(words)})
    return json.dumps(content).encode()


def _library(stored: bytes) -> Any:
    """As the engine has texts encoded that its table does not cover: literals of markers are ordinary text."""
    library = Tokenizer.from_str(with_markers(stored).decode())
    library.encode_special_tokens = True
    return library


STORED = {"demo": DEMO, "tests": raw(), "as it is": _changed(NOT_LOWERED), "accents": _changed(ACCENTS_KEPT)}
STORED["newer than the library"] = _changed({}, "\u9fff\u2e52\u2e5d\u2e4f")
STORED["two tokens of one character"] = _changed({}, ("\u09c7", "##\u09be"))


@cache
def _both() -> list[tuple[PromptTokenizer, Any]]:
    """Made with the first test, and not as each process of the suite collects them."""
    return [(PromptTokenizer(with_markers(stored)), _library(stored)) for stored in STORED.values()]


_EASY = st.sampled_from(
    "很好用不错物流快，。！？、；：“”‘’（）《》【】…—·,.!?:;-_/'\"()[]{}<>+=$~^`|\\@#%&* \t\n\r\u3000"
)
_RUNS = st.sampled_from(
    [
        *(
            "5",
            "100",
            "iphone12",
            "XP",
            "é",
            "ß",
            "İ",
            "ﬁ",
            "Σ",
            "ｍ",
            "９",
            "～",
            "カ",
            "パ",
            "ー",
            "㈱",
            "①",
            "￥",
            "℃",
        ),
        *("👍", "👍🏽", "❤️", "龘", "㐀", "豈", "〇", "々", "##好", "[SEP]", "[UNK]", "[PREFIX]", "[TYPE]", "a" * 101),
        *"\u200b\u200d\ufeff\ufffd\x00\x7f\x85\xa0\u2028\xad\u9fff\u037e\u2e52",
    ]
)
_HARD = st.sampled_from("\u0301\u0323\u0338\u20e3\u3099\u302a각\u1100\u1161\U00020000\U0001d165\u0378\ue000\U000e0001")
_WORDS = st.text(string.ascii_letters + string.digits, max_size=110)
TEXTS = st.lists(st.one_of(_EASY, _EASY, _RUNS, _WORDS), max_size=40).map("".join)
ANY_TEXT = st.lists(st.one_of(_EASY, _RUNS, _HARD, st.characters(exclude_categories=["Cs"])), max_size=20).map("".join)


def _has_the_same_tokens(text: str) -> None:
    for tokenizer, library in _both():
        wanted = library.encode(text, add_special_tokens=False)
        found = tokenizer.encode(text)
        assert (found.ids.tolist(), found.offsets.tolist()) == (wanted.ids, [list(pair) for pair in wanted.offsets])
        assert found.ids.dtype == found.offsets.dtype == np.int32
        assert found.offsets.shape == (len(wanted.ids), 2)
        assert tokenizer.ids(text) == tuple(wanted.ids)


@given(TEXTS | ANY_TEXT)
@example("好\u0323\u0301")
@example("5")
@example("a，")
@example("很好A" + "a1" * 50)
@example("很好很好很好很好\u09cb")
@example(" ")
@example("")
def test_any_text_has_the_tokens_and_offsets_of_the_library(text: str) -> None:
    """Whatever stands beside what: marks, removed characters, all kinds of space, literals of markers."""
    _has_the_same_tokens(text)


def test_a_text_of_any_length_has_them() -> None:
    """With as many tokens as there are positions at hand, and with more."""
    tokenizer, library = _both()[0]
    for length in (16_384, 16_385):
        text = ("很好用，" * length)[:length]
        found = tokenizer.encode(text)
        wanted = library.encode(text, add_special_tokens=False)
        assert found.ids.tolist() == wanted.ids
        assert list(map(tuple, found.offsets.tolist())) == wanted.offsets


def test_the_shipped_samples_have_them() -> None:
    """All reviews and annotated texts."""
    for path in (ROOT / "schemas/samples").glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            _has_the_same_tokens(json.loads(line)["text"])


@pytest.mark.parametrize("name", STORED)
def test_every_character_between_others_has_them(name: str) -> None:
    """A table entry is true beside a letter, a digit, a punctuation mark, an ideograph and itself."""
    tokenizer = PromptTokenizer(with_markers(STORED[name]))
    library = _library(STORED[name])
    table = character_ids(library)
    assert table is not None
    alone = np.flatnonzero(table >= SPACE).tolist()
    assert {ord("好"), ord("，"), ord(" "), ord("!")} <= set(alone)
    for first in range(0, len(alone), 500):
        # Few runs, or the library would get the text as a whole.
        text = "".join(
            f"很好用，物流快x{chr(code)}9，{chr(code)}好{chr(code)}{chr(code)}" for code in alone[first : first + 500]
        )
        wanted = library.encode(text, add_special_tokens=False)
        found = tokenizer.encode(text)
        assert found.ids.tolist() == wanted.ids
        assert list(map(tuple, found.offsets.tolist())) == wanted.offsets


def test_a_review_is_not_given_to_the_library() -> None:
    """Nothing of it but a run of other letters than ASCII's that was not met before, once."""
    tokenizer = PromptTokenizer(with_markers(DEMO))
    asked: list[str] = []

    class Watched:
        def encode(self, text: str, **_: object) -> Any:
            asked.append(text)
            return library.encode(text, add_special_tokens=False)

    library, tokenizer._literal = tokenizer._literal, Watched()
    for _ in range(2):
        assert len(tokenizer.encode("物流很快， 第2次买iPhone，カメ不错！").ids) > 12
    assert asked == ["カメ"]
    # What a table cannot say goes there as a whole: a mark that is sorted, and a text of nothing but runs.
    tokenizer.encode("好\u0301")
    tokenizer.encode("好a" * 100)
    assert asked[1:] == ["好\u0301", "好a" * 100]


def test_a_table_has_no_entry_for_what_depends_on_its_neighbours() -> None:
    """Letters and digits are parts of words, marks are sorted, and characters that no version of Unicode has may be."""
    table = character_ids(_both()[0][1])
    assert table is not None
    assert {int(table[ord(each)]) for each in "a9é１ａカ👍㐀\u200d\ufe0f"} - {RUN, LIBRARY} == set()
    assert {int(table[ord(each)]) for each in "\u0301\u3099\u0378"} == {LIBRARY}
    assert table[-1] == LIBRARY
    assert not table.flags.writeable


def _with(**changes: Any) -> Any:
    content = json.loads(with_markers(raw()))
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return Tokenizer.from_str(json.dumps(content))


OWN_TOKEN = {"content": "很好", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"handle_chinese_chars": False}},
        {"normalizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"added_tokens": [{"id": 5, "special": False, **OWN_TOKEN}]},
    ],
)
def test_another_tokenizer_has_no_table(changes: dict[str, Any]) -> None:
    """One that joins ideographs, cuts words in another way or looks for tokens of its own in the text."""
    assert character_ids(_with()) is not None
    assert character_ids(_with(**changes)) is None


def test_a_tokenizer_without_a_table_encodes_all_the_same() -> None:
    """By the library, as it does."""
    content = json.loads(with_markers(raw()))
    content["normalizer"]["handle_chinese_chars"] = False
    tokenizer = PromptTokenizer(json.dumps(content).encode())
    found = tokenizer.encode("很好，快")
    assert found.offsets.tolist() == [[0, 2], [2, 3], [3, 4]]
    assert len(tokenizer.ids("很好，快")) == 3
