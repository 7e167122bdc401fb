"""What a route's values may be said to be, their encoding and compression, and headers that results do not carry."""

from __future__ import annotations

import codecs
from encodings.aliases import aliases
from typing import TYPE_CHECKING

from consumer.config.problems import Check, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config

_NO_TEXT = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "charmap"}
"""Python counts these as encodings of text, but they are for host names and source code, or map nothing."""

_EXAMPLES = "write utf-8, gb18030, utf-16, windows-1252, shift_jis or another text encoding of Python"


def value_checks(config: Config) -> Iterator[Check]:
    """The checks of ``encoding``, ``compression`` and ``drop_headers`` of every route."""
    for index, route in enumerate(config.routes):
        for key in ("encoding", "compression"):
            yield (
                route.format == "avro" and getattr(route, key) is not None,
                ("routes", index, key),
                "is for JSON and text, and the route's format is avro, which is neither",
                "remove it; what compression.type of a producer packs is unpacked without it",
            )
        what, fix = _encoding_fault(route.encoding or "utf-8")
        yield what != "", ("routes", index, "encoding"), what, fix
        for number, name in enumerate(route.drop_headers):
            yield (
                "*" in name[:-1],
                ("routes", index, "drop_headers", number),
                f"{name!r} has an asterisk that is not its last character",
                "write a whole name, or its beginning and one asterisk",
            )


def _encoding_fault(name: str) -> tuple[str, str]:
    """Why values cannot be read with an encoding, and what to write instead; empty where they can."""
    shown = f"{name[:40]!r}"
    try:
        plain = codecs.lookup(name).name.replace("-", "_")
        # Not of nothing, which any codec decodes; rot13, base64 and their like are no encodings of text.
        b"a".decode(name)
    except UnicodeDecodeError:
        return "", ""  # one byte is not enough for a character
    except (LookupError, ValueError):
        guess = nearest(name.lower().replace("-", "_"), {*aliases, *aliases.values()})
        knows = guess is not None and guess != name and _encoding_fault(guess) == ("", "")
        return f"{shown} is no text encoding that Python knows", f"did you mean {guess}?" if knows else _EXAMPLES
    return (f"{shown} is no encoding of text that producers send", _EXAMPLES) if plain in _NO_TEXT else ("", "")
