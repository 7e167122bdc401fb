"""What the producers that ``routes.preset`` names put around a row: Debezium, Connect, CloudEvents, Canal and Maxwell.

``open_envelope`` takes the rows out, or says that the value holds no review. A route without preset never comes here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from consumer.codecs.decoding import parse_json, utf8
from consumer.codecs.metadata import digits_of
from consumer.codecs.outputs import CLOUDEVENT_PREFIXES
from consumer.events import BadInput, LocalMilliseconds, Milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.config.route import Preset
    from consumer.events import Header

NoReview = Literal["delete", "null_value", "no_review", "text_unavailable"]
"""Why a value has no review: its row was deleted; it is null; it is no row (a heartbeat, a change of a table); or its
update left the text alone, and the database did not send it again."""

UNAVAILABLE = "__debezium_unavailable_value"
"""What Debezium sends for a long text that an update left alone, where PostgreSQL does not log it again."""

_STRUCTURED = "application/cloudevents"
_OF_URLS = str.maketrans("-_", "+/")

_TIMES: Mapping[str, int] = {  # nanoseconds of one unit
    "io.debezium.time.Date": 86_400 * 10**9,
    "io.debezium.time.Timestamp": 10**6,
    "io.debezium.time.MicroTimestamp": 10**3,
    "io.debezium.time.NanoTimestamp": 1,
    "org.apache.kafka.connect.data.Date": 86_400 * 10**9,
    "org.apache.kafka.connect.data.Timestamp": 10**6,
}
"""Connect's names for numbers that are times, as a JSON value with a schema says them."""
_INSTANT = "org.apache.kafka.connect.data.Timestamp"
"""The only one of them that counts in UTC: Debezium's are columns without a zone, and so are days."""
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_MOST_DEPTH = 32
_MOST_DIGITS_BYTES = 64


class Base64(str):
    """Bytes in JSON: a binary column. As an id they stay so, since they are no text; a review in them is decoded."""

    __slots__ = ()

    def review(self) -> str:
        """Raises BadInput InvalidUtf8 or InvalidEvent (stage ``decode``)."""
        return _from_base64(self, "the text's column of bytes")


class Row(NamedTuple):
    """One row, or other object, in which the fields of an event are looked for."""

    value: Any
    around: tuple[Any, ...]
    """What it was taken out of, from the inside to the whole value: a path is looked for there second."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """Fields that the envelope has itself, such as the id of a CloudEvent."""
    number: int = 0
    """From 1, where a value may have several rows."""
    shares_around: bool = False
    """Whether what is around it is around the other rows, too."""


def open_envelope(preset: Preset, value: Any, headers: Sequence[Header]) -> tuple[Row, ...] | NoReview:
    """The rows of a value, or why it has none. Raises BadInput InvalidEvent for what is not of this preset."""
    if value is None:
        return "null_value"
    return _OPENERS[preset](value, headers)


def _payload(value: Any) -> Any:
    """What stands in Connect's ``{"schema": …, "payload": …}``, with the times and decimals that the schema names.

    Relays between the connector and Kafka leave the schema out.
    """
    if not isinstance(value, Mapping) or value.keys() - {"schema"} != {"payload"}:
        return value
    schema = value.get("schema")
    if "schema" not in value and not isinstance(value["payload"], Mapping):
        return value  # a row with a column of that name
    if schema is None or (isinstance(schema, Mapping) and isinstance(schema.get("type"), str)):
        return _converted(value["payload"], schema, 0)
    return value


def _converted(value: Any, schema: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or value is None or depth > _MOST_DEPTH:
        return value
    fields = schema.get("fields")
    if isinstance(value, Mapping) and isinstance(fields, list):
        kinds = {str(each.get("field")): each for each in fields if isinstance(each, Mapping)}
        return {name: _converted(item, kinds.get(name), depth + 1) for name, item in value.items()}
    name = schema.get("name")
    if isinstance(name, str) and name in _TIMES and isinstance(value, int) and not isinstance(value, bool):
        return (Milliseconds if name == _INSTANT else LocalMilliseconds)(value * _TIMES[name] // 10**6)
    if schema.get("type") == "bytes" and name is None and isinstance(value, str):
        return Base64(value)
    parameters = schema.get("parameters")
    if name == _DECIMAL and isinstance(value, str) and isinstance(parameters, Mapping):
        return _decimal(value, parameters.get("scale")) or value
    return value


def _decimal(value: str | bytes, scale: Any) -> str | None:
    """Digits of a number that came as big-endian bytes, or base64 of such, and how many places it has behind its dot.

    None where it is none.
    """
    try:
        unscaled = base64.b64decode(value, validate=True) if isinstance(value, str) else value
        places = int(str(scale)[:4])
    except ValueError:
        return None
    if not 0 < len(unscaled) <= _MOST_DIGITS_BYTES or not 0 <= places <= _MOST_DIGITS_BYTES:
        return None
    return digits_of(unscaled, places)


def _connect(value: Any, _: Sequence[Header]) -> tuple[Row, ...] | NoReview:
    payload = _payload(value)
    return "null_value" if payload is None else (Row(payload, (value,)),)


def _debezium(value: Any, _: Sequence[Header]) -> tuple[Row, ...] | NoReview:
    payload = _payload(value)
    if payload is None:
        return "null_value"
    if not isinstance(payload, Mapping):
        raise _not_of("debezium", "a change event, nor a row", payload)
    op = payload.get("op")
    if isinstance(op, str) and ("after" in payload or "before" in payload or "source" in payload):
        return _change(payload, value, op)
    if _is_deleted(payload):
        return "delete"
    if _is_of_the_connector(payload):
        return "no_review"
    return (Row(_columns(payload), (value,)),)  # flattened by ExtractNewRecordState


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which numbers of any scale, as Oracle's ids are, are digits: they come as ``{scale, value}``."""
    return {name: _any_scale(item) or item for name, item in row.items()}


def _any_scale(item: Any) -> str | None:
    if not isinstance(item, Mapping) or item.keys() != {"scale", "value"}:
        return None
    return _decimal(item["value"], item["scale"]) if isinstance(item["value"], (str, bytes)) else None


def _change(payload: Mapping[str, Any], value: Any, op: str) -> tuple[Row, ...] | NoReview:
    if op == "d":
        return "delete"
    if op not in ("c", "r", "u"):
        return "no_review"
    after = payload.get("after")
    if isinstance(after, str):  # MongoDB's connector sends the document as text
        after = parse_json(after)
    before = payload.get("before")
    if isinstance(after, Mapping) and isinstance(before, Mapping) and UNAVAILABLE in after.values():
        kept = {name: before.get(name, item) for name, item in after.items() if item == UNAVAILABLE}
        after = {**after, **kept}
    if isinstance(after, Mapping):
        after = _columns(after)
    return (Row(after, ({**payload, "after": after}, value)),)


def _is_deleted(row: Mapping[str, Any]) -> bool:
    return row.get("__deleted") in (True, "true") or row.get("__op") == "d"


def _is_of_the_connector(value: Mapping[str, Any]) -> bool:
    """A heartbeat, a change of a table's schema, or the border of a transaction."""
    keys = value.keys()
    return (
        (bool(keys) and keys <= {"ts_ms", "ts_us", "ts_ns"})
        or ("ddl" in keys and bool(keys & {"databaseName", "tableChanges"}))
        or ("source" in keys and "tableChanges" in keys)
        or (value.get("status") in ("BEGIN", "END") and {"id", "event_count", "data_collections"} <= keys)
    )


def _cloudevents(value: Any, headers: Sequence[Header]) -> tuple[Row, ...] | NoReview:
    content_type = _header(headers, "content-type").lower()  # often with a charset behind
    if isinstance(value, list) and (content_type.startswith(_STRUCTURED + "-batch") or _all_structured(value)):
        rows = [_structured(each, number) for number, each in enumerate(value, 1)]
        return tuple(rows) or "no_review"
    if isinstance(value, Mapping) and "specversion" in value:
        return (_structured(value, 0),)
    if content_type.startswith(_STRUCTURED) and "json" in content_type:
        raise _not_of("cloudevents", "an object with specversion, as its content-type says", value)
    attributes = {"event_id": "id", "source": "source", "created_at": "time"}
    defaults = {
        name: text
        for name, each in attributes.items()
        if (text := _header(headers, *(prefix + each for prefix in CLOUDEVENT_PREFIXES)))
    }
    return (Row(value, (), defaults),)


def _all_structured(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(each, Mapping) and "specversion" in each for each in value)


def _structured(event: Any, number: int) -> Row:
    if not isinstance(event, Mapping):
        return Row(event, (), number=number)
    defaults = {"event_id": event.get("id"), "source": event.get("source"), "created_at": event.get("time")}
    data = event.get("data")
    encoded = event.get("data_base64")
    if data is None and isinstance(encoded, str):
        data = _from_base64(encoded, "data_base64")
    kind = event.get("datacontenttype")
    # Text in place of an object: many libraries encode JSON twice.
    if isinstance(data, str) and data.lstrip()[:1] == "{" and (kind is None or "json" in str(kind).lower()):
        data = parse_json(data)
    return Row(data, (event,), {name: item for name, item in defaults.items() if item is not None}, number)


def _from_base64(encoded: str, what: str) -> str:
    """Of any of the usual kinds: some encoders break lines, use the alphabet of URLs, or leave the padding away."""
    plain = "".join(encoded.split()).translate(_OF_URLS).rstrip("=")
    try:
        return utf8(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except ValueError:
        message = f"{what} ({len(encoded)} characters) is not base64; send the data as it is, or encode it"
        raise BadInput("decode", "InvalidEvent", message) from None


def _header(headers: Sequence[Header], *names: str) -> str:
    """The last of these headers, in any case of letters, as text; empty where there is none."""
    found = (value for name, value in reversed(headers) if name.lower() in names and value is not None)
    return next(found, b"").decode("utf-8", "replace")


def _canal(value: Any, _: Sequence[Header]) -> tuple[Row, ...] | NoReview:
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str) or "data" not in value:
        raise _not_of("canal", "a message with type and data (canal.mq.flatMessage = true)", value)
    kind, data = value["type"].upper(), value["data"]
    if kind == "DELETE":
        return "delete"
    if value.get("isDdl") is True or kind not in ("INSERT", "UPDATE") or not data:
        return "no_review"
    if not isinstance(data, list):
        raise _not_of("canal", "a message whose data is an array of rows", data)
    return tuple(Row(row, (value,), number=number, shares_around=True) for number, row in enumerate(data, 1))


def _maxwell(value: Any, _: Sequence[Header]) -> tuple[Row, ...] | NoReview:
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise _not_of("maxwell", "a message with type and data", value)
    kind = value["type"]
    if kind == "delete":
        return "delete"
    if kind not in ("insert", "update", "bootstrap-insert"):
        return "no_review"
    return (Row(value.get("data"), (value,)),)


def _not_of(preset: Preset, wanted: str, value: Any) -> BadInput:
    found = "an object without it" if isinstance(value, Mapping) else "no object"
    what = (
        f"the route's preset is {preset}, and the value is not {wanted}, but {found}; check what the producer sends, "
        "or remove the preset and name the path of each field in the route's fields"
    )
    return BadInput("validate", "InvalidEvent", what)


_OPENERS = {
    "debezium": _debezium,
    "connect": _connect,
    "cloudevents": _cloudevents,
    "canal": _canal,
    "maxwell": _maxwell,
}
