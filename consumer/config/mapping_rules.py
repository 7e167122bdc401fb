"""What cannot work in a route's mapping: sources of fields, presets, deletes. ``rules`` takes these checks in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.config.field_sources import ASKED_FOR, FieldSource, Sources, parse_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.problems import Check, KeyPath
    from consumer.config.route import RouteConfig
    from consumer.config.tree import Config


def mapping_checks(config: Config) -> Iterator[Check]:
    """The checks of ``preset``, ``fields`` and ``on_delete`` of all routes."""
    for index, route in enumerate(config.routes):
        path: KeyPath = ("routes", index)
        yield (
            route.on_delete == "forward" and config.delivery.release_order == "none",
            (*path, "on_delete"),
            "is forward, and delivery.order is none: a delete could pass a result of its own row",
            "remove delivery.order, or set it to key or partition",
        )
        yield (
            route.format == "text" and route.preset not in (None, "cloudevents"),
            (*path, "preset"),
            f"{route.preset} takes fields out of objects, and the route's format is text",
            "set format to json or avro, or remove the preset",
        )
        yield (
            route.format == "avro" and route.preset is not None and config.kafka.registry.url is None,
            (*path, "preset"),
            f"{route.preset} is set for Avro, and without kafka.registry.url values are events of the shipped schema",
            "set kafka.registry.url, or set format to json",
        )
        takes_tasks = route.event_tasks == "any" and route.may_name("tasks")
        yield (
            route.is_mapped
            and route.format != "text"
            and not route.tasks
            and not takes_tasks
            and not (route.inline_schemas and route.may_name("schema"))
            and (route.inline_schemas or route.event_tasks == "any"),  # else another rule says so
            (*path, "tasks"),
            "has no task, and fields takes neither tasks nor a schema from the value, so nothing could be extracted",
            "add a task, such as product_features",
        )
        sources, faults = parse_fields(route.fields or {})
        for fault in faults:
            yield True, (*path, "fields", *fault.keys), fault.what, fault.fix
        yield from _fields(route, (*path, "fields"), sources)


def mapping_doubts(config: Config) -> Iterator[Check]:
    """What works and is probably a mistake."""
    for index, route in enumerate(config.routes):
        yield (
            route.preset == "canal" and route.on_delete == "forward",
            ("routes", index, "on_delete"),
            "is forward, and Canal's producer gives its records no key: deletes without one are dropped",
            "set it to drop, unless something else writes these messages under their rows' keys",
        )


def _fields(route: RouteConfig, path: KeyPath, sources: Sources) -> Iterator[Check]:
    if route.format == "text":
        yield (
            "text" in sources,
            (*path, "text"),
            "is mapped, and the route's format is text: the whole value is the text",
            "remove it, or set format to json or avro",
        )
        for name in (*ASKED_FOR, "attributes", "event_id", "product_id", "source", "language", "created_at"):
            source = sources.get(name)  # type: ignore[call-overload]
            yield (
                name in ASKED_FOR and source is not None,
                (*path, name),
                "is mapped, and a bare text can name no task and bring no schema",
                "remove it, or set format to json or avro",
            )
            yield (
                any(way.place == "value" for each in _all(source) for way in each.paths),
                (*path, name),
                "leads into the value, and the route's format is text: a text has no fields",
                "use $key, $headers.NAME, $timestamp or a constant, or set format to json or avro",
            )
    yield (
        sources.get("schema") is not None and not route.inline_schemas,
        (*path, "schema"),
        "is mapped, and inline_schemas is false, so every event with a schema would be a dead letter",
        "remove it, or set inline_schemas to true",
    )
    yield (
        sources.get("kind") is not None and sources.get("schema") is None,
        (*path, "kind"),
        "is mapped, and schema is not: the kind is that of an event's own schema",
        "map schema too, or remove it",
    )


def _all(source: FieldSource | dict[str, FieldSource] | None) -> Iterator[FieldSource]:
    if isinstance(source, dict):
        yield from source.values()
    elif source is not None:
        yield source
