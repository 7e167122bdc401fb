"""Targets: what turns the bytes of a record's value into an event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from avro_frames import EVENT_SCHEMA, RESULT_SCHEMA, datum, framed, known
from fuzzing import CANARY, JSON_TOKENS, Target, a_name, a_schema, a_text, a_value, bad, damaged, json_bytes, require

from consumer.codecs.avro_codec import schema_id
from consumer.codecs.avro_schemas import event_schema, parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput, ReviewEvent

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

RICH = {
    "type": "record",
    "name": "ReviewEvent",
    "namespace": "rexstream",
    "fields": [
        {"name": "kinds", "type": {"type": "enum", "name": "Kinds", "symbols": ["A", "B"]}},
        {"name": "text", "type": ["string", "bytes", "null"]},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
        {"name": "again", "type": ["null", "ReviewEvent"]},
        {"name": "numbers", "type": {"type": "array", "items": ["double", "float", "int"]}},
        {"name": "created_at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "attributes", "type": {"type": "map", "values": "string"}},
    ],
}
SCHEMAS = {
    1: event_schema(),
    **{
        number: parse_writer_schema(json.dumps(schema))
        for number, schema in {2: RICH, 3: json.loads(RESULT_SCHEMA), 4: "string", 70_000: "null"}.items()
    },
}


def accepted(event: ReviewEvent) -> str:
    """Check that what was accepted can be carried on and written out again."""
    require(event.text.strip(), "a text of nothing but white space")
    require(event.kind in ("extract", "classify", "multi_classify"), f"kind {event.kind!r}")
    require(event.tasks is None or 0 < len(event.tasks) <= 64, "a number of tasks")
    require(event.created_at is None or -(2**63) <= event.created_at < 2**63, "a timestamp of more than 64 bits")
    for part in (event.event_id, event.text, event.product_id, event.source, event.language, *(event.tasks or ())):
        (part or "").encode()
    for name, value in event.attributes.items():
        (name + value).encode()
    return "event"


def outcome(decode: Callable[[bytes], ReviewEvent], value: bytes) -> str:
    try:
        return accepted(decode(value))
    except BadInput as error:
        return bad(error)


# -- inputs -----------------------------------------------------------------------------------------------------------


def an_event(random: Random) -> dict[str, Any]:
    """Fields of an event; one in five is of another type than it should be."""
    fields: dict[str, Any] = {"text": a_text(random) + CANARY}
    if random.random() < 0.01:
        fields["text"] = (a_text(random, 6) or "很") * 9000
    for name, make in (
        ("event_id", lambda: a_text(random, 2)),
        ("tasks", lambda: [a_name(random) for _ in range(random.choice((0, 1, 2, 70)))]),
        ("schema", lambda: random.choice((a_schema(random), json.dumps(a_schema(random))))),
        ("kind", lambda: random.choice(("extract", "classify", "multi_classify", "other", ""))),
        ("product_id", lambda: a_text(random, 2)),
        ("created_at", lambda: random.choice((0, -5, 1_800_000_000_000, 2**63, 1.5))),
        ("attributes", lambda: {a_name(random): a_text(random, 2) for _ in range(random.randrange(3))}),
        ("other", lambda: a_value(random)),
    ):
        if random.random() < 0.3:
            fields[name] = make()
    if random.random() < 0.2:
        fields[random.choice(list(fields))] = a_value(random)
    return fields


def a_json_value(random: Random, damage: float = 0.7) -> bytes:
    if random.random() < 0.05:
        return random.randbytes(random.randrange(80))
    value = an_event(random) if random.random() < 0.95 else a_value(random)
    body = json_bytes(random, value)
    return damaged(random, body, JSON_TOKENS, body) if random.random() < damage else body


def a_text_value(random: Random) -> bytes:
    body = (a_text(random) + CANARY).encode(random.choice(("utf-8", "utf-8", "utf-16", "gb18030")), errors="replace")
    return damaged(random, body, (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b" " * 40))


def _avro_fields(random: Random) -> dict[str, Any]:
    text = a_text(random, surrogates=0)
    return {
        "text": text + CANARY,
        "event_id": random.choice((None, "", "e-1")),
        "tasks": random.choice((None, [], ["sentiment"], [text[:9]] * 3)),
        "schema": random.choice((None, json.dumps(a_schema(random)), "{", "[]")),
        "kind": random.choice((None, "extract", "nothing")),
        "created_at": random.choice((None, 0, 2**62)),
        "attributes": {"a": text[:5]},
    }


_AVRO_TOKENS = (
    b"\xff" * 9 + b"\x01",
    b"\x80" * 9 + b"\x01",
    b"\x00",
    b"\x01",
    b"\x02",
    b"\xfe\xff\xff\xff\x0f",
    b"\x03\x80\x80",
)


def a_bare_datum(random: Random) -> bytes:
    if random.random() < 0.1:
        return random.randbytes(random.randrange(60))
    return damaged(random, datum(EVENT_SCHEMA, _avro_fields(random)), _AVRO_TOKENS)


def _rich(random: Random, depth: int = 3) -> dict[str, Any]:
    return {
        "kinds": random.choice("AB"),
        "text": random.choice(("很轻" + CANARY, b"\xff\x00", None, "")),
        "digest": random.randbytes(4),
        "again": _rich(random, depth - 1) if depth and random.random() < 0.5 else None,
        "numbers": [1.5, 7],
        "created_at": random.choice((None, 1, 2**62)),
        "attributes": {"a": "b"},
    }


def a_framed_datum(random: Random) -> bytes:
    number = random.choice((1, 1, 1, 2, 2, 3, 4, 5, 70_000, 2**32 - 1))
    if number == 1:
        body = datum(EVENT_SCHEMA, _avro_fields(random))
    elif number == 2:
        body = datum(RICH, _rich(random))
        if random.random() < 0.02:
            # A chain of records in records, deeper than Python's stack.
            body = b"\x00\x06\x08abcd\x02" * random.choice((50, 5000)) + body
    else:
        body = random.randbytes(random.randrange(40))
    value = framed(body, number)
    return damaged(random, value, _AVRO_TOKENS) if random.random() < 0.7 else value


_TYPES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string", "Node", "nonsense", "", "record")


def _a_writer_type(random: Random, depth: int) -> Any:
    match random.randrange(9 if depth else 4):
        case 4:
            return {"type": "array", "items": _a_writer_type(random, depth - 1)}
        case 5:
            return {"type": "map", "values": _a_writer_type(random, depth - 1)}
        case 6:
            return [_a_writer_type(random, depth - 1) for _ in range(random.randrange(4))]
        case 7:
            return {
                "type": "record",
                "name": random.choice(("Node", "Other", "a b", "")),
                "fields": [
                    {"name": f"f{number}", "type": _a_writer_type(random, depth - 1)}
                    for number in range(random.randrange(3))
                ],
            }
        case 8:
            size = random.choice((0, 1, 4, 2**40, -1, "4"))
            return random.choice(
                ({"type": "fixed", "name": "F", "size": size}, {"type": "enum", "name": "E", "symbols": ["A"]})
            )
        case _:
            return random.choice(_TYPES)


def a_writer_schema(random: Random) -> tuple[bytes, bytes]:
    """The text of a schema that a producer might register, and a datum that claims to be written with it."""
    fields = [{"name": f"x{number}", "type": _a_writer_type(random, 3)} for number in range(random.randrange(3))]
    fields.insert(random.randrange(len(fields) + 1), {"name": "text", "type": random.choice(("string", "bytes"))})
    schema = {"type": "record", "name": "ReviewEvent", "namespace": "rexstream", "fields": fields}
    text = json.dumps(schema).encode()
    if random.random() < 0.3:
        text = damaged(random, text, (b'"type"', b'"null"', b"[]", b"{}", b"null", b"[" * 2000))
    return text, damaged(random, b"\x08abcd" * 3 + random.randbytes(random.randrange(20)), _AVRO_TOKENS)


def check_writer_schema(given: tuple[bytes, bytes]) -> str:
    text, body = given
    try:
        schema = parse_writer_schema(text.decode(errors="replace"))
    except ValueError as error:
        require(len(str(error)) < 200, "a long message")
        return "no schema"
    return outcome(lambda value: decode_value(value, "avro", "t-0-1", known({1: schema})), framed(body, 1))


def check_frame(value: bytes) -> str:
    try:
        number = schema_id(value)
    except BadInput as error:
        return bad(error)
    require(isinstance(number, int) and framed(value[5:], number) == value, "a frame that cannot be put on again")
    return "framed"


TARGETS = (
    Target("json", 160, a_json_value, lambda value: outcome(lambda v: decode_value(v, "json", "t-0-1"), value)),
    Target("text", 60, a_text_value, lambda value: outcome(lambda v: decode_value(v, "text", "t-0-1"), value)),
    Target("bare-avro", 60, a_bare_datum, lambda value: outcome(lambda v: decode_value(v, "avro", "t-0-1"), value)),
    Target(
        "framed-avro",
        60,
        a_framed_datum,
        lambda value: outcome(lambda v: decode_value(v, "avro", "t-0-1", known(SCHEMAS)), value),
    ),
    Target("writer-schemas", 30, a_writer_schema, check_writer_schema),
    Target("framing", 40, lambda random: damaged(random, framed(b"datum", random.getrandbits(32))), check_frame),
)
