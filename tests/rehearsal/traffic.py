"""What comes in: JSON reviews with a bad one now and then, and Avro reviews under schemas of the registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from avro_frames import EVENT_SCHEMA, datum, framed
from chaos.reviews import KINDS, Review, plain, results, text
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable

NEWER_SCHEMA = json.dumps(
    {
        **json.loads(EVENT_SCHEMA),
        "fields": [*json.loads(EVENT_SCHEMA)["fields"], {"name": "stars", "type": "int", "default": 0}],
    }
)
"""What a producer writes that has moved on."""

_BAD = ("null", "not_json", "not_utf8", "no_text", "blank", "wrong_type", "unknown_task")
_BAD_EVERY = 150
"""Shops are known to send 0.1 to 1 % of bad records; RexstreamDeadLetters is about 2 %."""


def json_review(number: int) -> Review:
    """The JSON load."""
    if number % _BAD_EVERY == _BAD_EVERY // 2:
        return KINDS[_BAD[number // _BAD_EVERY % len(_BAD)]](number)
    return plain(number)


def register(url: str, topic: str) -> tuple[int, int]:
    """The ids of the shipped schema of events and of ``NEWER_SCHEMA``, which are the topic's from now on."""
    client = SchemaRegistryClient({"url": url})
    first, second = (
        client.register_schema(f"{topic}-value", Schema(schema, "AVRO")) for schema in (EVENT_SCHEMA, NEWER_SCHEMA)
    )
    return first, second


def avro_reviews(schema_id: int, schema: str = EVENT_SCHEMA) -> Callable[[int], Review]:
    """The Avro load: values in Confluent's wire format."""

    def write(number: int) -> Review:
        fields = {"event_id": f"avro-{number}", "text": text(number)}
        value = framed(datum(schema, fields), schema_id)
        return Review("avro", f"p{number % 17}".encode(), value, results(), fields["event_id"], fields["text"])

    return write
