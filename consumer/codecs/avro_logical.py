"""What a datum's parts become while it is read: times with a known unit, decimals and enums as text.

fastavro calls these functions by the names in ``LOGICAL_READERS``, which ``avro_schemas`` writes into a schema in place
of the producer's own: those raise for values that no calendar holds, and know nothing of Debezium or Connect.
"""

from __future__ import annotations

import threading
import uuid
from typing import Any

from fastavro.read import LOGICAL_READERS

from consumer.codecs.metadata import digits_of
from consumer.events import LocalMilliseconds, Milliseconds

ENUM, ENUM_NAME, SYMBOLS = "rexstream-enum", "rexstream.name", "rexstream.symbols"
"""An enum is read as its number, and then named: registries accept symbols that fastavro refuses."""

RECORD, RENAMED = "rexstream-record", "rexstream.renamed"
"""A record that has fields of events under other names: ``RENAMED`` has ours, then the producer's."""

CONTAINER, OWN_BYTES = "rexstream-container", "rexstream.bytes"
"""An array or a map that counts, as records with ``OWN_BYTES`` do: the memory that one without content takes."""

_SCALE = "rexstream.scale"
_MOST_SCALE = 255
"""Of a decimal, zeros that its text may have, and bytes of its number: no database has more digits."""

_TIME_BYTES = 128
"""What a time counts for, more than it takes: a million of one byte each would hold the event loop for a second. Those
of this century have six bytes, so that 1 MiB of them is within the bound."""

_MILLIS, _MICROS, _NANOS, _DAYS = "rexstream-millis", "rexstream-micros", "rexstream-nanos", "rexstream-days"
_LOCAL = "-local"
"""Behind those of times without a zone. A day has none, either."""
_DECIMAL, _UUID, _ANY_DECIMAL = "rexstream-decimal", "rexstream-uuid", "rexstream-variable-decimal"

_CONVERTED = {
    ("long", "timestamp-millis"): _MILLIS,
    ("long", "timestamp-micros"): _MICROS,
    ("long", "timestamp-nanos"): _NANOS,
    ("long", "local-timestamp-millis"): _MILLIS + _LOCAL,
    ("long", "local-timestamp-micros"): _MICROS + _LOCAL,
    ("long", "local-timestamp-nanos"): _NANOS + _LOCAL,
    ("int", "date"): _DAYS,
    ("bytes", "decimal"): _DECIMAL,
    ("fixed", "decimal"): _DECIMAL,
    ("fixed", "uuid"): _UUID,
    ("long", "io.debezium.time.Timestamp"): _MILLIS + _LOCAL,
    ("long", "io.debezium.time.MicroTimestamp"): _MICROS + _LOCAL,
    ("long", "io.debezium.time.NanoTimestamp"): _NANOS + _LOCAL,
    ("int", "io.debezium.time.Date"): _DAYS,
    ("record", "io.debezium.data.VariableScaleDecimal"): _ANY_DECIMAL,
    ("long", "org.apache.kafka.connect.data.Timestamp"): _MILLIS,
    ("int", "org.apache.kafka.connect.data.Date"): _DAYS,
    ("bytes", "org.apache.kafka.connect.data.Decimal"): _DECIMAL,
}
"""By Avro's type, and its logical type or the name that Connect gives it. On another type such a name says nothing."""


class TooManyValues(Exception):  # noqa: N818 - named for what it is; the codec makes BadInput of it
    """The datum being read has taken more memory than ``allow`` granted."""


class _Memory(threading.local):
    left = 0


_memory = _Memory()


def allow(most: int) -> None:
    """How many bytes the decimals and times of the next datum may take, and records, arrays and maps within arrays."""
    _memory.left = most


def logical_type(schema: dict[str, Any], name: str | None = None) -> dict[str, Any] | None:
    """The schema of a type whose values are converted; None for one that has no other meaning here.

    ``name`` is the full name of a named type.
    """
    kind = schema["type"]
    names = [known for key in ("logicalType", "connect.name") if isinstance(known := schema.get(key), str)]
    logical = next((_CONVERTED[kind, known] for known in names if (kind, known) in _CONVERTED), None)
    named = {} if name is None else {"name": name}
    if kind == "fixed":
        named["size"] = schema["size"]
    if logical == _ANY_DECIMAL:
        parts = [("scale", "int"), ("value", "bytes")]
        if [(field["name"], field["type"]) for field in schema["fields"]] != parts:
            return None
        fields = [{"name": part, "type": kind} for part, kind in parts]
        return {"type": "record", **named, "logicalType": logical, "fields": fields}
    if logical == _DECIMAL:
        scale = schema.get("scale", 0)
        if isinstance(scale, int) and 0 <= scale <= _MOST_SCALE:
            return {"type": kind, **named, "logicalType": logical, _SCALE: scale}
    elif logical is not None and (logical != _UUID or schema["size"] == 16):
        return {"type": kind, **named, "logicalType": logical}
    return None


def _enum(number: int, schema: Any, _: Any) -> Any:
    if number < 0:
        raise IndexError(number)
    return schema[SYMBOLS][number]


def _record(fields: Any, schema: Any, _: Any) -> Any:
    if OWN_BYTES in schema:
        _container(fields, schema, None)
    for ours, theirs in schema.get(RENAMED, {}).items():
        fields[ours] = fields[theirs]
    return fields


def _container(content: Any, schema: Any, _: Any) -> Any:
    _spend(schema[OWN_BYTES])
    return content


def _spend(size: int) -> None:
    _memory.left -= size
    if _memory.left < 0:
        raise TooManyValues


def _time(number: int, kind: type[Milliseconds] = Milliseconds) -> Milliseconds:
    _spend(_TIME_BYTES)
    return kind(number)


def _decimal(content: bytes, schema: Any, _: Any) -> str | bytes:
    return _plain(content, schema[_SCALE])


def _variable_decimal(fields: Any, schema: Any, _: Any) -> Any:
    if OWN_BYTES in schema:
        _container(fields, schema, None)
    return _plain(fields["value"], fields["scale"]) if abs(fields["scale"]) <= _MOST_SCALE else fields


def _plain(content: bytes, scale: int) -> str | bytes:
    """The digits of a decimal; bytes of more than any database has are left as they are."""
    if len(content) > _MOST_SCALE:
        return content
    _spend(60 + 3 * len(content) + abs(scale))
    return digits_of(content, scale)


LOGICAL_READERS.update(
    {
        f"int-{ENUM}": _enum,
        f"record-{RECORD}": _record,
        f"array-{CONTAINER}": _container,
        f"map-{CONTAINER}": _container,
        f"long-{_MILLIS}": lambda number, *_: _time(number),
        f"long-{_MICROS}": lambda number, *_: _time(number // 1000),
        f"long-{_NANOS}": lambda number, *_: _time(number // 1_000_000),
        f"long-{_MILLIS}{_LOCAL}": lambda number, *_: _time(number, LocalMilliseconds),
        f"long-{_MICROS}{_LOCAL}": lambda number, *_: _time(number // 1000, LocalMilliseconds),
        f"long-{_NANOS}{_LOCAL}": lambda number, *_: _time(number // 1_000_000, LocalMilliseconds),
        f"int-{_DAYS}": lambda number, *_: _time(number * 86_400_000, LocalMilliseconds),
        f"bytes-{_DECIMAL}": _decimal,
        f"fixed-{_DECIMAL}": _decimal,
        f"fixed-{_UUID}": lambda content, *_: str(uuid.UUID(bytes=content)),
        f"record-{_ANY_DECIMAL}": _variable_decimal,
    }
)
