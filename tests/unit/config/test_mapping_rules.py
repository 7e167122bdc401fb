"""A route's mapping as it is written: what is taken, and what fails at start with its key and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from consumer.config.field_sources import FieldSource, Path, parse_fields
from consumer.config.loading import load, load_config
from consumer.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(*settings: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {}, settings)
    return {problem.key: problem for problem in caught.value.problems}


DESIGN = """
routes:
  - input: shop.cdc.reviews
    tasks: [sentiment]
    preset: debezium
    on_delete: forward
    fields:
      text: content
      event_id: [id, $key]
      product_id: item.sku
      source: {value: shop-a}
      created_at: {from: ts, unit: seconds, utc_offset: "+08:00"}
      attributes: {stars: rating.stars, lang: $headers.lang}
      language: null
"""


def test_a_mapping_in_a_file(write: Callable[[str], str]) -> None:
    """As the documentation writes it; null is kept, since it says that a field is not read."""
    (route,) = load_config(write(DESIGN), {}).routes
    assert route.is_mapped
    sources, faults = parse_fields(route.fields or {})
    assert faults == []
    assert sources["event_id"] == FieldSource((Path("id", "value", ("id",)), Path("$key", "$key", ())))
    assert sources["created_at"] == FieldSource((Path("ts", "value", ("ts",)),), unit="seconds", utc_offset=480)
    assert sources["language"] is None
    assert sources["attributes"] == {
        "stars": FieldSource((Path("rating.stars", "value", ("rating", "stars")),)),
        "lang": FieldSource((Path("$headers.lang", "$headers", ("lang",)),)),
    }


def test_a_mapping_by_variables_and_flags(write: Callable[[str], str]) -> None:
    """As any other key, over a file's or without one."""
    environ = {"REXSTREAM_ROUTES__0__FIELDS__TEXT": "body.text", "REXSTREAM_ROUTES__0__PRESET": "connect"}
    (route,) = load_config(write(DESIGN), environ, ["routes.0.fields.event_id=[a, $key.id]"]).routes
    assert route.preset == "connect"
    assert route.fields is not None
    assert (route.fields["text"], route.fields["event_id"]) == ("body.text", ("a", "$key.id"))
    assert route.fields["source"] == {"value": "shop-a"}
    (route,) = load_config(None, {}, ["routes.0.fields={text: a, created_at: {from: t, unit: days}}"]).routes
    assert route.fields == {"text": "a", "created_at": {"from": "t", "unit": "days"}}


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ("{txt: a}", "txt", "no field of an event; did you mean text"),
        ("{rating: a}", "rating", "fields of an event are text, event_id"),
        ("{text: null}", "text", "is empty, but must be a path"),
        ("{text: ''}", "text", "empty path"),
        ("{text: 'a '}", "text", "white space"),
        ("{text: a..b}", "text", "two dots"),
        ("{text: .a}", "text", "one at an end"),
        ("{text: 'a[0].b'}", "text", "images.0.url"),
        ("{text: $.a.b}", "text", "JSONPath does; leave that away: a.b"),
        ("{text: $}", "text", "JSONPath"),
        ("{text: 'a\\'}", "text", "ends with a backslash"),
        ("{text: $kye}", "text", "did you mean $key"),
        ("{text: '${CONTENT}'}", "text", "there is no ${CONTENT}"),
        ("{text: $headers}", "text", "names no header"),
        ("{text: $headers.}", "text", "one at an end"),
        ("{text: $timestamp.ms}", "text", "which is a number"),
        ("{text: 5}", "text", "a whole number, but must be a path"),
        ("{text: true}", "text", "true/false, but must be a path"),
        ("{text: []}", "text", "empty list"),
        ("{text: [[a]]}", "text.0", "a list, but must be a path"),
        ("{text: {value: hello}}", "text.value", "every review would say the same"),
        ("{event_id: {value: e}}", "event_id.value", "the same id"),
        ("{tasks: {value: [ner]}}", "tasks.value", "the route's tasks"),
        ("{schema: {value: {a: null}}}", "schema.value", "task file"),
        ("{kind: {value: extrakt}, schema: s}", "kind.value", "classify"),
        ("{source: {value: 5}}", "source.value", "a whole number, but must be text; put it in quotes"),
        ("{source: {value: a, from: b}}", "source", "both from and value"),
        ("{source: {}}", "source", "neither from nor value"),
        ("{source: {form: a}}", "source.form", "did you mean from"),
        ("{source: {from: {a: b}}}", "source.from", "is a mapping"),
        ("{source: {from: a, unit: seconds}}", "source.unit", "only created_at"),
        ("{source: [{value: a}, b]}", "source.0", "put a constant last"),
        ("{source: [a, {from: b}]}", "source.1", "which lists do not have"),
        ("{created_at: {from: a, unit: second}}", "created_at.unit", "did you mean seconds"),
        ("{created_at: {from: a, unit: 5}}", "created_at.unit", "must be one of seconds"),
        ("{created_at: {from: a, utc_offset: Asia/Shanghai}}", "created_at.utc_offset", '"+08:00"'),
        ("{created_at: {from: a, utc_offset: '+18:00'}}", "created_at.utc_offset", "more than 14 hours"),
        ("{created_at: {from: a, utc_offset: 8}}", "created_at.utc_offset", '"+08:00"'),
        ("{created_at: {from: a, utc_offset: +0530}}", "created_at.utc_offset", '"+08:00"'),
        ("{created_at: {from: a, utc_offset: true}}", "created_at.utc_offset", "hours and minutes"),
        ("{created_at: {value: 5}}", "created_at.value", "the same time"),
        ("{created_at: {value: 5, unit: seconds}}", "created_at.unit", "beside a constant"),
        ("{attributes: {value: {from: a, value: b}}}", "attributes.value", "both from and value"),
        ("{attributes: [a, {value: b}]}", "attributes.1.value", "name each attribute"),
        ("{attributes: {a: null}}", "attributes.a", "is empty, but must be a path"),
        ("{kind: a}", "kind", "schema is not"),
    ],
)
def test_what_no_mapping_can_mean_is_refused(fields: str, key: str, words: str) -> None:
    """With the key and the way out."""
    problem = refused(f"routes.0.fields={fields}")[f"routes.0.fields.{key}"]
    assert words in str(problem)


@pytest.mark.parametrize(
    "fields",
    [
        "{text: a, attributes: {value: price.amount, from: sender, unit: u}}",
        "{text: a, created_at: {from: [a, b], utc_offset: +10:00}}",
        r"{text: 'a\.b.c\\d.\$e.\[0]'}",
        "{text: [a, b], source: [shop.name, {value: unknown}]}",
        "{text: a, tasks: wanted, schema: s, kind: $headers.kind}",
        "{text: a.0.1, attributes: attributes.0}",
        "{text: 评论.内容}",
    ],
)
def test_what_may_look_wrong_is_taken(fields: str) -> None:
    """Attributes may have any name; YAML reads an offset without quotes as minutes."""
    config = load_config(None, {}, ["routes.0.fields=" + fields])
    assert parse_fields(config.routes[0].fields or {})[1] == []


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        (["routes.0.preset=debezum"], "routes.0.preset", "did you mean debezium"),
        (["routes.0.on_delete=tombstone"], "routes.0.on_delete", "forward"),
        (["routes.0.on_delete=forward", "delivery.order=none"], "routes.0.on_delete", "could pass a result"),
        (["routes.0.format=text", "routes.0.preset=canal"], "routes.0.preset", "format is text"),
        (["routes.0.format=text", "routes.0.fields={text: a}"], "routes.0.fields.text", "the whole value is the text"),
        (["routes.0.format=text", "routes.0.fields={event_id: id}"], "routes.0.fields.event_id", "$headers.NAME"),
        (
            ["routes.0.format=text", "routes.0.fields={attributes: {a: $key, b: c}}"],
            "routes.0.fields.attributes",
            "a text has no fields",
        ),
        (["routes.0.format=text", "routes.0.fields={tasks: $headers.t}"], "routes.0.fields.tasks", "can name no task"),
        (
            ["routes.0.fields={text: a, schema: s}", "routes.0.inline_schemas=false"],
            "routes.0.fields.schema",
            "inline_schemas is false",
        ),
        (["routes.0.fields={text: a}", "routes.0.tasks=[]"], "routes.0.tasks", "nothing could be extracted"),
        (["routes.0.fields={text: a, tasks: t}", "routes.0.tasks=[]"], "routes.0.tasks", "nothing could be extracted"),
        (["routes.0.format=avro", "routes.0.preset=debezium"], "routes.0.preset", "without kafka.registry.url"),
        (["routes.0.fields=text"], "routes.0.fields", "must be a mapping"),
    ],
)
def test_combinations_that_cannot_work(settings: list[str], key: str, words: str) -> None:
    """They fail at start."""
    assert words in str(refused(*settings)[key])


@pytest.mark.parametrize(
    "settings",
    [
        ["routes.0.format=text", "routes.0.preset=cloudevents"],
        ["routes.0.format=avro", "routes.0.preset=debezium", "kafka.registry.url=http://r:8081"],
        ["routes.0.format=text", "routes.0.fields={event_id: $key, attributes: {a: $headers.b}, source: {value: c}}"],
        ["routes.0.on_delete=forward", "delivery.mode=exactly_once"],
        ["routes.0.on_delete=forward", "delivery.order=key"],
        ["routes.0.fields={text: a, tasks: t}", "routes.0.tasks=[]", "routes.0.event_tasks=any"],
        ["routes.0.fields={text: a, schema: t}", "routes.0.tasks=[]"],
        ["routes.0.fields={}", "routes.0.tasks=[]"],
        ["routes.0.fields=null"],
    ],
)
def test_combinations_that_work(settings: list[str]) -> None:
    """And are no doubt either."""
    load_config(None, {}, settings)


def test_a_mapped_route_takes_no_schema_that_it_does_not_name() -> None:
    """So its results have no topic for them, and an output that is nothing but a placeholder is one."""
    settings: list[Any] = ["routes.0.output={task}", "routes.0.fields={text: a}"]
    loaded = load(None, {}, settings)
    assert loaded.config.routes[0].may_name("schema") is False
    assert "placeholder" in str(refused("routes.0.output={task}", "routes.0.fields={text: a, schema: s}"))


def test_deletes_of_canal_have_no_key() -> None:
    """They may, where something else writes them, so it is a warning."""
    (warning,) = load(None, {}, ["routes.0.preset=canal", "routes.0.on_delete=forward"]).warnings
    assert (warning.key, "no key" in warning.what) == ("routes.0.on_delete", True)
