"""Dead letters changed, step by step, for a topic that refuses them as they are: for their size above all.

The producers of both delivery modes call ``smaller`` until the topic takes what is left.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from consumer.delivery.dead_letters import (
    DETAILS_OMITTED,
    HEADERS_OMITTED,
    KEY_ADDED,
    KEY_OMITTED,
    KEY_SHA256,
    KIP_1191,
    ORIGINAL_TIMESTAMP,
    PREFIX,
    VALUE_OMITTED,
)
from consumer.events import header_bytes

if TYPE_CHECKING:
    from consumer.events import Output

_ESSENTIAL = frozenset(
    {
        *(KIP_1191 + name for name in ("topic", "partition", "offset", "group")),
        *(PREFIX + name for name in ("id", "stage", "class", "task", "task-count", "failed-at", "replay-count")),
        *(ORIGINAL_TIMESTAMP, VALUE_OMITTED, HEADERS_OMITTED, KEY_OMITTED, KEY_SHA256, KEY_ADDED),
    }
)
"""Headers that say which record it was and what it lacks: some 500 bytes, besides the names of topic and task."""

_TIMESTAMP_BYTES = 20
"""Longest 64-bit number in decimal: a longer original timestamp was not written by a worker."""


def smaller(dead_letter: Output) -> Output | None:
    """The dead letter for a topic that refuses its size: without the largest thing that matters least.

    Its value goes first, then the headers that the record brought, its key, and what is said at length about the
    failure. None when all that is gone.
    """
    steps = (without_value, without_carried_headers, without_key, without_details)
    return next((found for step in steps if (found := step(dead_letter)) is not None), None)


def without_value(dead_letter: Output) -> Output | None:
    """The dead letter without its value; None when it has none left to omit."""
    if dead_letter.value is None:
        return None
    note = (VALUE_OMITTED, str(len(dead_letter.value)).encode())
    return replace(dead_letter, value=None, headers=(*dead_letter.headers, note))


def without_carried_headers(dead_letter: Output) -> Output | None:
    """The dead letter without the record's own headers.

    The headers about the failure and an original timestamp stay. None when there are none left to omit.
    """
    # ``of`` puts its headers behind those that the record brought, beginning with this name; another system's may come
    # before.
    begin = max((at for at, (name, _) in enumerate(dead_letter.headers) if name == KIP_1191 + "topic"), default=0)
    carried, added = dead_letter.headers[:begin], dead_letter.headers[begin:]
    original = tuple(
        header for header in carried if header[0] == ORIGINAL_TIMESTAMP and len(header[1] or b"") <= _TIMESTAMP_BYTES
    )[-1:]
    if carried == original:
        return None
    omitted = header_bytes(carried) - header_bytes(original)
    return replace(dead_letter, headers=(*original, *added, (HEADERS_OMITTED, str(omitted).encode())))


def without_key(dead_letter: Output) -> Output | None:
    """The dead letter without its key, which two headers describe: its length, and its SHA-256 to know it by.

    None when it has no key, or none that is longer than these.
    """
    key = dead_letter.key
    notes = (
        (KEY_OMITTED, str(len(key or b"")).encode()),
        (KEY_SHA256, hashlib.sha256(key or b"").hexdigest().encode()),
    )
    if key is None or len(key) <= header_bytes(notes):
        return None
    return replace(dead_letter, key=None, headers=(*dead_letter.headers, *notes))


def without_details(dead_letter: Output) -> Output | None:
    """The dead letter with no more headers than say which record it was; None when it has no others."""
    kept = tuple(header for header in dead_letter.headers if header[0] in _ESSENTIAL)
    omitted = header_bytes(dead_letter.headers) - header_bytes(kept)
    note = (DETAILS_OMITTED, str(omitted).encode())
    if omitted <= header_bytes((note,)):
        return None
    return replace(dead_letter, headers=(*kept, note))


def with_key(dead_letter: Output) -> Output:
    """The dead letter with a key of its own, the SHA-256 of its id: a compacted topic takes none without.

    A header says so, by which a replay leaves it out.
    """
    identifier = next((value or b"" for name, value in reversed(dead_letter.headers) if name == PREFIX + "id"), b"")
    key = hashlib.sha256(identifier).hexdigest().encode()  # short, or ``without_key`` would take it away again
    return replace(dead_letter, key=key, headers=(*dead_letter.headers, (KEY_ADDED, b"true")))


def without_timestamp(dead_letter: Output) -> Output:
    """The dead letter stamped by the producer, with the record's timestamp in a header."""
    note = (ORIGINAL_TIMESTAMP, str(dead_letter.timestamp_ms).encode())
    return replace(dead_letter, timestamp_ms=None, headers=(*dead_letter.headers, note))
