"""An AsyncAPI 3.0 document of a configuration: topics, messages, their schemas and headers. Pure.

``rexstream asyncapi`` writes it. Payloads are those of ``schemas/json`` and ``schemas/avro``; the example of a result
is made by the code that makes results. Nothing secret is in it: addresses without credentials, no client's settings.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from consumer import __version__
from consumer.codecs.mapping import described
from consumer.codecs.outputs import ModelUsed, Timing, result_fields, result_id
from consumer.config.names import result_topics
from consumer.config.problems import without_login
from consumer.config.shipped import shipped
from consumer.config.topic_patterns import is_pattern
from consumer.events import ReviewEvent, SourceRecord
from consumer.extraction.task import INLINE, Extracted, Fact, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.config.route import RouteConfig
    from consumer.config.tree import Config
    from consumer.extraction.task import SchemaTree

BINDING_VERSION = "0.5.0"
"""Of the Kafka bindings."""

_AVRO = "application/vnd.apache.avro+json;version=1.9.0"
_SECURITY = {
    "PLAIN": "plain",
    "SCRAM-SHA-256": "scramSha256",
    "SCRAM-SHA-512": "scramSha512",
    "GSSAPI": "gssapi",
}
_DESCRIPTION = (
    "What a worker with this configuration reads and writes: shop reviews in, structured facts out. Written by "
    "rexstream asyncapi."
)
_EVENT = ReviewEvent("r-1", "屏幕很清晰，就是有点重。", product_id="p-7", source="shop-a", created_at=1_792_000_000_000)
_SPANS = ("屏幕", "清晰", "屏幕很清晰")
_MODEL = ModelUsed("rexuninlu", "1", "serving_default")
_TIMING = Timing(queued_ms=1.5, model_ms=12.5, total_ms=15.0, model_calls=2)


def asyncapi_document(config: Config, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The document, of JSON types. ``tasks``: those that are loaded."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for number, route in enumerate(config.routes):
        name, channel = f"review-{number}", _input(route, number)
        messages[name] = _review(config, route)
        _add(channels, channel, name, "Reviews to extract facts from.")
        if channel != route.input:
            channels[channel] |= {"address": None, "description": f"Reviews, on all topics that match {route.input}"}
            del channels[channel]["bindings"]
        operations[f"receive-{number}"] = {
            "action": "receive",
            "channel": _reference("channels", channel),
            "summary": f"Reviews of {route.input} are read by the consumer group {config.kafka.group_id}.",
            "bindings": {"kafka": {"groupId": _exactly(config.kafka.group_id), "bindingVersion": BINDING_VERSION}},
            "messages": [_of_channel(channel, name)],
        }
        for topic, names in result_topics(route, tasks).items():
            result = f"result-{number}-{topic}"
            messages[result] = _result(route, names, tasks)
            _add(channels, topic, result, "Results: what tasks found in reviews. The key is the review's.")
            if route.on_delete == "forward":
                messages["tombstone"] = _tombstone()
                _add(channels, topic, "tombstone", "")
    letters = config.delivery.dead_letter_topic
    messages["dead-letter"] = _dead_letter(config)
    _add(channels, letters, "dead-letter", "Records that can give no result, each with the reason in its headers.")
    inputs = {_input(route, number) for number, route in enumerate(config.routes)}
    for topic in [each for each in channels if each not in inputs]:
        operations[f"send-{topic}"] = {
            "action": "send",
            "channel": _reference("channels", topic),
            "messages": [_of_channel(topic, name) for name in channels[topic]["messages"]],
        }
    servers, schemes = _servers(config)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Rexstream",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": servers,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, **({"securitySchemes": schemes} if schemes else {})},
    }


def _servers(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The brokers by name, and how clients log in, without any name or password."""
    client, security = config.kafka.client, config.kafka.security
    protocol = str(security.protocol or client.get("security.protocol", "plaintext")).lower()
    mechanism = str(security.mechanism or client.get("sasl.mechanism") or client.get("sasl.mechanisms", "")).upper()
    scheme: dict[str, Any] | None = None
    if protocol.startswith("sasl"):
        kind = _SECURITY.get(mechanism)
        scheme = {"type": kind} if kind else {"type": "http", "scheme": "bearer"}
        scheme["description"] = f"SASL {mechanism}".strip()
    elif security.certificate_file is not None:
        scheme = {"type": "X509", "description": "A client certificate (mutual TLS)."}
    bindings: dict[str, Any] = {}
    if (url := config.kafka.registry.url) is not None:
        kafka = {
            "schemaRegistryUrl": without_login(url),
            "schemaRegistryVendor": "confluent",
            "bindingVersion": BINDING_VERSION,
        }
        bindings = {"bindings": {"kafka": kafka}}
    addresses = [part.strip() for part in config.kafka.bootstrap_servers.split(",") if part.strip()]
    servers = {
        "kafka" if not number else f"kafka-{number + 1}": {
            "host": address.rpartition("://")[2].rpartition("@")[2],
            "protocol": "kafka-secure" if protocol.endswith("ssl") else "kafka",
            **({"security": [{"$ref": "#/components/securitySchemes/login"}]} if scheme else {}),
            **bindings,
        }
        for number, address in enumerate(addresses)
    }
    return servers, {"login": scheme} if scheme else {}


def _input(route: RouteConfig, number: int) -> str:
    """The channel of a route's input: its topic, or for a pattern a name that no topic can have."""
    return f"inputs:{number}" if is_pattern(route.input) else route.input


def _add(channels: dict[str, Any], topic: str, message: str, description: str) -> None:
    binding = {"kafka": {"topic": topic, "bindingVersion": BINDING_VERSION}}
    channel = channels.setdefault(
        topic, {"address": topic, "description": description, "messages": {}, "bindings": binding}
    )
    channel["messages"][message] = _reference("components", "messages", message)


def _review(config: Config, route: RouteConfig) -> dict[str, Any]:
    """The message of an input topic."""
    text = {"type": "string", "minLength": 1, "maxLength": config.limits.text_chars}
    example: Any = {"event_id": _EVENT.event_id, "text": _EVENT.text, "product_id": _EVENT.product_id}
    message: dict[str, Any] = {"title": "A review", "bindings": _key("Decides the partition; results keep it.")}
    charset = f"; charset={route.encoding}" if route.encoding is not None else ""
    if route.compression is not None:
        message["description"] = f"Each value is packed with {route.compression} by its producer."
    if route.is_mapped:
        return {**message, **_mapped(route, charset)}
    if route.format == "text":
        message |= {"contentType": f"text/plain{charset}", "payload": text}
        example = _EVENT.text
    elif route.format == "avro":
        message |= {"contentType": "avro/binary", "payload": _avro("review_event")}
    else:
        payload = json_schema("review_event")
        payload["properties"]["text"] |= {"maxLength": config.limits.text_chars}
        message |= {"contentType": f"application/json{charset}", "payload": payload}
    return {**message, "examples": [{"name": "review", "payload": example}]}


def _mapped(route: RouteConfig, charset: str) -> dict[str, Any]:
    """What is known of values that are no events: which fields they are read into."""
    around = f"What the preset {route.preset} takes its rows out of. " if route.preset is not None else ""
    fields = "; ".join(f"{name}: {source}" for name, source in described(route).items())
    kind = {"text": "text/plain", "avro": "avro/binary"}.get(route.format, "application/json")
    return {
        "title": "A value with a review in it",
        "contentType": f"{kind}{charset}",
        "payload": {"description": f"{around}The producer's own form, read as {fields}."},
    }


def _tombstone() -> dict[str, Any]:
    """The message of a review that was deleted."""
    return {
        "title": "A tombstone",
        "description": "The review under this key was deleted, and with it its results on this topic.",
        "payload": {"type": "null"},
        "bindings": _key("The review's."),
        "examples": [{"name": "tombstone", "payload": None}],
    }


def _result(route: RouteConfig, names: Sequence[str], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The message of the results of ``names`` on one topic."""
    task = tasks.get(names[0]) or Task(INLINE, "extract", {"优点": None})
    record = SourceRecord(route.input, 0, 41, 1, None, None, (), 1_792_000_100_000, 0.0)
    found = Extracted((_path(task.schema, extracts=task.kind == "extract"),), (), _TIMING.model_calls)
    fields = result_fields(_EVENT, task, found, _MODEL, _TIMING, 1_792_000_100_250, record)
    headers = json_schema("result_headers")
    headers["properties"]["rexstream-task"] |= {"enum": list(names)}
    payload: dict[str, Any]
    if route.output_format == "avro":
        payload = _avro("extraction_result")
    else:
        payload = json_schema("extraction_result")
        payload["properties"]["task"] |= {"enum": list(names)}
    sent = {
        "rexstream-task": task.name,
        "rexstream-task-fingerprint": task.fingerprint,
        "rexstream-result-id": result_id(_EVENT.event_id, task),
        "traceparent": f"00-{'4bf92f3577b34da6' * 2}-00f067aa0ba902b7-01",
    }
    return {
        "title": f"A result of {', '.join(names)}",
        "contentType": "avro/binary" if route.output_format == "avro" else "application/json",
        "headers": headers,
        "payload": payload,
        "correlationId": {"location": "$message.header#/rexstream-result-id"},
        "bindings": _key("The review's."),
        "examples": [{"name": task.name, "headers": sent, "payload": fields}],
    }


def _path(schema: SchemaTree, *, extracts: bool) -> tuple[Fact, ...]:
    """A path from the root to a leaf of a task's schema, in the example's text."""
    path: list[Fact] = []
    level: SchemaTree | None = schema
    while level:
        name, level = next(iter(level.items()))
        span = _SPANS[len(path) % len(_SPANS)] if extracts else None
        start = _EVENT.text.index(span) if span else None
        path.append(Fact(name, span, start, None if start is None or span is None else start + len(span), 0.9731))
    return tuple(path)


def _dead_letter(config: Config) -> dict[str, Any]:
    """The message of the dead-letter topic."""
    topic = config.routes[0].input
    sent = {
        "__dlq.errors.topic": topic,
        "__dlq.errors.partition": "0",
        "__dlq.errors.offset": "42",
        "__dlq.errors.group": config.kafka.group_id,
        "__dlq.errors.delivery.count": "1",
        "__dlq.errors.message": "the event has no text; set its field text to the review",
        "rexstream-dlq-id": f"{topic}-0-42",
        "rexstream-dlq-stage": "validate",
        "rexstream-dlq-class": "MissingText",
    }
    return {
        "title": "A dead letter",
        "description": "Key and value are those of the record that gave no result, whatever they are.",
        "contentType": "application/octet-stream",
        "headers": json_schema("dead_letter_headers"),
        "payload": {"description": "The record's own value, byte for byte; null where it was too large."},
        "correlationId": {"location": "$message.header#/rexstream-dlq-id"},
        "bindings": _key("The record's own."),
        "examples": [{"name": "MissingText", "headers": sent, "payload": {"event_id": "r-2"}}],
    }


def json_schema(name: str) -> dict[str, Any]:
    """A shipped JSON Schema without its dialect, which is AsyncAPI's own."""
    schema: dict[str, Any] = json.loads(shipped(f"schemas/json/{name}.schema.json").read_text("utf-8"))
    del schema["$schema"]
    return schema


def _avro(name: str) -> dict[str, Any]:
    return {"schemaFormat": _AVRO, "schema": json.loads(shipped(f"schemas/avro/{name}.avsc").read_text("utf-8"))}


def _key(description: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": description}, "bindingVersion": BINDING_VERSION}}


def _exactly(value: str) -> dict[str, Any]:
    return {"type": "string", "enum": [value]}


def _reference(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)}


def _of_channel(topic: str, message: str) -> dict[str, str]:
    return _reference("channels", topic, "messages", message)
