"""What a fuzz target is, how its inputs are numbered, and the random pieces that inputs are made of.

An input is a function of (seed, target, index) alone: whatever is found can be made again, on any machine.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from consumer.extraction.prompts import MARKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.events import BadInput

Body = Any


class Violation(AssertionError):  # noqa: N818 - named for what it is
    """An input for which something does not hold that must hold for every input."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is fed. ``make`` draws an input, ``check`` feeds it and says what class of outcome it had.

    ``check`` raises Violation, or whatever the fed code raises and must not.
    """

    name: str
    per_thousand: int
    """Share of all inputs, so that cheap targets get more."""
    make: Callable[[Random], Body]
    check: Callable[[Body], str]


def input_of(target: Target, seed: int, index: int) -> Body:
    """The input with that number."""
    return target.make(Random(f"{seed}/{target.name}/{index}"))


def require(holds: object, what: str) -> None:
    """Raise Violation unless it holds."""
    if not holds:
        raise Violation(what)


# -- what bad input may say -------------------------------------------------------------------------------------------

CANARY = "QX7Zgeheim"
"""Stands in reviews and in secrets. Nothing that is said about a bad one may repeat it."""

_STAGES = ("decode", "validate", "extract", "produce")
_REASON = re.compile("[A-Z][A-Za-z0-9]{2,40}")
_QUOTES_NAMES = ("InvalidSchema",)
"""Reasons whose messages may quote up to 40 characters of a type name."""


def bad(error: BadInput) -> str:
    """Check what a refusal says; its reason as the class of the outcome."""
    require(error.stage in _STAGES, f"stage {error.stage!r}")
    require(_REASON.fullmatch(error.reason), f"reason {error.reason!r}")
    require(0 < len(error.message) < 600, f"a message of {len(error.message)} characters")
    require(error.reason in _QUOTES_NAMES or CANARY not in error.message, f"the message quotes: {error.message!r}")
    error.message.encode()
    return error.reason


# -- texts ------------------------------------------------------------------------------------------------------------

_PIECES = (
    *MARKERS, "[SEP]", "[CLS]", "[UNK]", "[PAD]", "#", "物流", "很快，", "外壳结实", "不好", " ", "\t", "\r\n",
    "\x00", "\x1f", "\x7f", "\x85", "e\u0301", "ﬁ", "Ａ1", "İ", "ß", "𠮷🎉", "👩‍👩‍👧", "🇩🇪", "\u200b", "\u200d",
    "\ufeff", "\u202eabc", "שלום", "مرحبا", "\u0301" * 9, "\ufffd", "\ufffe", "\U0010ffff", "\ue000", "\u2028",
    "\u3000", "ก็ำ", "नमस्ते", "한국어", "ㅎ", "word", "Unbelievable", "100%", "1,5", "'", '"', "\\", "{", "}",
    "<b>", "null", CANARY,
)  # fmt: skip
_PLANES = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0x4E00, 0x9FFF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))


def a_text(random: Random, most: int = 12, surrogates: float = 0.03) -> str:
    """A text of pieces that have made trouble somewhere, and of characters of every plane."""
    found = []
    for _ in range(random.randrange(most + 1)):
        roll = random.random()
        if roll < 0.6:
            found.append(random.choice(_PIECES))
        elif roll < 1 - surrogates:
            first, last = random.choice(_PLANES)
            found.append("".join(chr(random.randint(first, last)) for _ in range(random.randint(1, 4))))
        else:
            found.append(chr(random.randint(0xD800, 0xDFFF)))
    text = "".join(found)
    return text * random.choice((2, 7, 60)) if random.random() < 0.03 else text


def a_name(random: Random) -> str:
    """A type name: short, sometimes odd."""
    if random.random() < 0.6:
        return random.choice(("属性词", "正向情感(情感词)", "优点", "价格", "a", "Name", "[TYPE]", "退货(事件触发词)"))
    name = a_text(random, 3)
    return name if name.strip() or random.random() < 0.02 else "型" + name


def a_schema(random: Random, depth: int = 3) -> dict[str, Any]:
    """A schema tree as a caller may write it; most are valid."""
    tree: dict[str, Any] = {}
    for _ in range(random.choice((1, 1, 2, 3, 5))):
        children: Any = None
        if depth > 1 and random.random() < 0.3:
            children = a_schema(random, depth - 1)
        elif random.random() < 0.03:
            children = random.choice(({}, [], "x", 0, 1.5, True, ["a"], {"": None}))
        tree[a_name(random)] = children
    return tree


def a_value(random: Random, depth: int = 3) -> Any:
    """Any JSON value."""
    kind = random.randrange(9 if depth else 6)
    if kind == 0:
        return random.choice((None, True, False))
    if kind == 1:
        return random.choice((0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30))
    if kind == 2:
        return random.choice((0.0, -0.0, 1.5, 1e308, 5e-324, -1e-7, float("nan"), float("inf")))
    if kind <= 5:
        return a_text(random, 4)
    if kind == 6:
        return [a_value(random, depth - 1) for _ in range(random.randrange(4))]
    return {a_name(random): a_value(random, depth - 1) for _ in range(random.randrange(4))}


def json_bytes(random: Random, value: Any) -> bytes:
    """JSON text in one of the ways to write it; lone surrogates as escapes."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 1)))
    return text.encode(random.choice(("utf-8",) * 40 + ("utf-16", "utf-8-sig", "gb18030")), errors="backslashreplace")


# -- damage -----------------------------------------------------------------------------------------------------------

JSON_TOKENS = (
    b"NaN", b"Infinity", b"1e999", b"-0", b"1" * 5000, b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b"\\u0000",
    b"\\udfff", b"null", b"true", b"{}", b"[]", b",", b":", b'"', b'{"text":"x",', b'"text":""', b'"text":" "',
    b'"text":1', b'"schema":"{"', b'"schema":{"":null}', b'"tasks":["", "x"]', b'"kind":"classify"',
    b'"created_at":1e3', b'"attributes":{"a":1}', b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80",
)  # fmt: skip
_INTERESTING = bytes((0, 1, 2, 9, 10, 0x20, 0x22, 0x5C, 0x7F, 0x80, 0xC0, 0xFE, 0xFF))


def damaged(random: Random, data: bytes, tokens: Sequence[bytes] = (), other: bytes = b"") -> bytes:
    """A copy with a few bytes or stretches flipped, cut, doubled, moved, or taken from ``tokens`` or ``other``."""
    body = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 8))):
        size = len(body)
        at = random.randrange(size + 1)
        stretch = at + random.choice((1, 1, 2, 4, 16, 64, size))
        match random.randrange(9):
            case 0 if at < size:
                body[at] ^= 1 << random.randrange(7 if body[at] < 128 else 8)
            case 1 if at < size:
                body[at] = random.choice(_INTERESTING)
            case 2:
                del body[at:stretch]
            case 3:
                body[at:at] = body[at:stretch] * random.choice((1, 1, 2, 20))
            case 4:
                many = random.choice((1, 2, 4, 9))
                ascii_only = random.random() < 0.8
                body[at:at] = bytes(random.choices(range(32, 127), k=many)) if ascii_only else random.randbytes(many)
            case 5:
                del body[at:]
            case 6 if tokens:
                body[at:at] = random.choice(tokens)
            case 7 if tokens:
                body[at:stretch] = random.choice(tokens)
            case 8 if other:
                start = random.randrange(len(other))
                body[at:at] = other[start : start + random.choice((1, 8, 64))]
        if len(body) > 200_000:
            break
    return bytes(body)
