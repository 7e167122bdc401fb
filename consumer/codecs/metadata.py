"""What an event brings beside its text, where it is not of the type that is wanted: it never costs the review.

What loses nothing by it is converted (a number as an id, an ISO date, an object among attributes). All else is left
out, with a warning for each result of the event. ``decoding`` comes here for the exception: fields that are as they
should be never do. Warnings name the field, what it was and its size, never what it says; a name among attributes may
be text of the review, too, so they are counted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from consumer.codecs.times import milliseconds
from consumer.events import Milliseconds

SLUG = "field-dropped"
"""What a warning of a field begins with."""

SUSPECT = "field-suspect"
"""What a warning of a field begins with that is kept, and is hardly what was meant."""

SECONDS_BELOW = 100_000_000_000
"""As milliseconds a time in March of 1973, when no shop had reviews; in seconds, one in the year 5138."""

_EXACT = 2**53
"""From here on a float may not be the number that was written."""

_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "null"),
    (bool, "a boolean"),  # before the numbers: to Python it is one
    ((int, float), "a number"),
    (str, "a string"),
    (Mapping, "an object"),
    ((list, tuple), "an array"),
    ((bytes, bytearray), "bytes"),
)


def what_it_is(value: object) -> str:
    """A value's JSON type, for a message: ``an object``."""
    kinds = (name for types, name in _TYPES if isinstance(value, types))
    return next(kinds, f"of type {type(value).__name__}")


def digits_of(unscaled: bytes, scale: int) -> str:
    """A decimal's text: a two's complement number, big-endian, divided by ten to the power of ``scale``."""
    number = int.from_bytes(unscaled, "big", signed=True)
    digits = str(abs(number) * 10 ** max(-scale, 0)).rjust(scale + 1, "0")
    point = len(digits) - max(scale, 0)
    return ("-" if number < 0 else "") + digits[:point] + ("." + digits[point:] if scale > 0 else "")


def dropped(field: str, why: str) -> str:
    """The warning of a field that is left out."""
    return f"{SLUG}: {field} {why}"


def text_of(field: str, value: object, warnings: list[str], most: int | None = None) -> str | None:
    """The text of a field that is not null: a number's digits, UTF-8 of bytes (Avro's). None, with a warning, for
    booleans, containers and what has more than ``most`` characters.
    """
    why = f"is {what_it_is(value)}"
    if isinstance(value, float):
        why += " of which not every digit is known; send it as a string"
    text: str | None = None
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(int(value))
    elif isinstance(value, float) and abs(value) < _EXACT:  # not NaN either
        text = str(int(value)) if value.is_integer() else repr(value)
    elif isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            why = "is bytes that are not UTF-8"
    if text is not None and most is not None and len(text) > most:
        why = f"has {len(text)} characters, more than {most}"
        text = None
    if text is None:
        warnings.append(dropped(field, why))
    return text


def time_of(field: str, value: object, warnings: list[str]) -> int | None:
    """A time in milliseconds since 1970, as ``milliseconds`` reads it without a unit; None, with a warning. An empty
    text is no time. A number that must be in seconds is kept as it is, with a warning.
    """
    if value == "":
        return None
    try:
        found = milliseconds(value)
    except ValueError as error:
        why = str(error) if isinstance(value, int | float | str) and not isinstance(value, bool) else what_it_is(value)
        warnings.append(dropped(field, f"is {why}"))
        return None
    is_number = not isinstance(value, Milliseconds) and (not isinstance(value, str) or value.strip().isdigit())
    if is_number and SECONDS_BELOW // 1000 <= found < SECONDS_BELOW:
        what = "is before April 1973 in milliseconds; if it is in seconds, name its unit in fields of the route"
        warnings.append(f"{SUSPECT}: {field} {what}")
    return found


def attributes_of(value: object, warnings: list[str], most: int) -> dict[str, str]:
    """Attributes as texts: numbers, booleans, arrays and objects as compact JSON. Those that are null are not there.

    What cannot be JSON text (NaN, bytes that are not UTF-8) is left out, and all of them are if they have more than
    ``most`` characters, names and values; a warning says how many. So is what is no object or the JSON of
    one, but for an empty text and an empty array, which is how PHP writes an empty object.
    """
    if isinstance(value, str) and value[:1] == "{" and len(value) <= 2 * most:
        # Twice: the JSON of an object in a text has more characters than what is in it.
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        if value != "" and not (isinstance(value, list | tuple) and not value):
            warnings.append(dropped("attributes", f"is {what_it_is(value)}"))
        return {}
    texts: dict[str, str] = {}
    left, unwritable = most, 0
    for name, item in value.items():
        if item is None:
            continue
        # Counted first: JSON of the smallest pieces takes many times its size while it is written.
        nodes = 0 if isinstance(item, str) else _nodes(left, item)
        if left < len(name) or left < nodes:
            left = -1
            break
        try:
            text = item if isinstance(item, str) else _json(item)
        except (ValueError, TypeError, RecursionError):
            unwritable += 1
            left -= len(name) + nodes  # it took as long as if it could be: each of a thousand rows may have it
            continue
        left -= len(name) + len(text)
        texts[name] = text
    if left < 0:
        warnings.append(dropped("attributes", f"({len(value)}) have more than {most} characters"))
        return {}
    if unwritable:
        warnings.append(dropped("attributes", f"({unwritable} of {len(value)}) cannot be written as JSON"))
    return texts


def _nodes(most: int, value: object) -> int:
    """How many nodes a tree has below its root; when these are more than ``most``, not all are counted."""
    count, nodes = 0, [value]
    while nodes and count <= most:
        node = nodes.pop()
        if isinstance(node, Mapping | list | tuple):
            count += len(node)
            if count <= most:
                nodes += node.values() if isinstance(node, Mapping) else node
    return count


def _json(value: object) -> str:
    """Compact JSON; of bytes their text. Raises ValueError, TypeError or RecursionError for what has none."""
    if isinstance(value, bytes):
        return value.decode()
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_decoded)


def _decoded(value: object) -> str:
    """Bytes within a value of Avro, as text. Raises ValueError for other bytes, TypeError for what is none."""
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError
