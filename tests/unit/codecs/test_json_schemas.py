"""The JSON Schemas that producers and subscribers get say what the code takes and makes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from contracts import RESULT, check_dead_letter, contract
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from consumer.codecs.decoding import event_from_fields
from consumer.codecs.outputs import ModelUsed, Timing, encode_json, result_fields
from consumer.config.shipped import shipped
from consumer.delivery.dead_letter_size import smaller, with_key, without_timestamp
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.events import BadInput, Output, ReviewEvent, SourceRecord
from consumer.extraction.task import Extracted, Fact, Task

EVENT = Draft7Validator(contract("review_event"))
NAMES = ("review_event", "extraction_result", "result_headers", "dead_letter_headers")

words = st.text(st.characters(codec="utf-8"), max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
whens = st.integers(-(10**15), 10**15) | st.floats(-1e15, 1e15) | st.datetimes().map(str) | words
fields_of_events = st.fixed_dictionaries(
    {"text": words.map(lambda text: f"{text}好") | anything},
    optional={
        "event_id": words | anything,
        "product_id": words | st.integers() | anything,
        "source": words | anything,
        "language": st.none() | words | anything,
        "created_at": whens | anything,
        "attributes": st.dictionaries(words, words | anything, max_size=3) | anything,
        "tasks": st.none() | st.lists(words, max_size=3) | anything,
        "schema": st.dictionaries(words, st.none(), max_size=2) | st.just('{"a": null}') | anything,
        "kind": st.sampled_from(["extract", "classify", "multi_classify", "", None]) | anything,
        "stars": anything,
    },
)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_schemas_and_each_field_is_described(name: str) -> None:
    """And name their dialect, which AsyncAPI's default is made of."""
    schema = contract(name)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(schema)

    def walk(node: dict[str, Any]) -> None:
        for below in node.get("properties", {}).values():
            assert below["description"]
            walk(below)
            walk(below.get("items", {}).get("items", {}))

    walk(schema)


@settings(deadline=None, max_examples=60)
@given(fields=fields_of_events)
@example(
    {"text": "好", "event_id": 7, "created_at": "2026-01-02", "attributes": {"stars": 5, "tags": ["a"]}, "kind": ""}
)
@example({"text": "好", "attributes": [], "tasks": [], "schema": '{"a": {}}', "product_id": 1.5})
def test_what_is_taken_without_a_warning_validates(fields: dict[str, Any]) -> None:
    """Whatever else is in it. What gives a warning, or a dead letter, may or may not."""
    try:
        warnings = event_from_fields(fields, "in-0-1").warnings
    except BadInput:
        return
    if not warnings:
        EVENT.validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": None},
        {"text": " \u3000"},
        {"text": 7},
        {"text": "好", "event_id": "x" * 513},
        {"text": "好", "tasks": "ner"},
        {"text": "好", "tasks": [1]},
        {"text": "好", "schema": [1]},
        [],
        "好",
    ],
)
def test_what_becomes_a_dead_letter_does_not_validate(fields: Any) -> None:
    if isinstance(fields, dict):
        with pytest.raises(BadInput):
            event_from_fields(fields, "in-0-1")
    assert not EVENT.is_valid(fields)


events = st.builds(
    ReviewEvent,
    event_id=words.filter(bool),
    text=words,
    product_id=st.none() | words,
    source=st.none() | words,
    language=st.none() | words,
    created_at=st.none() | st.integers(-62_135_596_800_000, 253_402_300_799_999),
    attributes=st.dictionaries(words, words, max_size=2),
    warnings=st.sampled_from([(), ("field-dropped: source is a boolean",)]),
)
spans = st.tuples(words, st.integers(0, 9), st.integers(0, 9)) | st.just((None, None, None))
facts = st.builds(
    lambda name, span, score: Fact(name, span[0], span[1], span[2], round(score, 4)),
    words.filter(bool),
    spans,
    st.floats(0, 1),
)
found = st.builds(
    Extracted,
    paths=st.lists(st.lists(facts, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
    warnings=st.sampled_from([(), ("facts-capped: more than 5 facts on a level or paths; the rest was dropped",)]),
    model_calls=st.integers(0, 4096),
)
timings = st.builds(Timing, st.none() | st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 4096))
records = st.none() | st.builds(
    SourceRecord,
    *(st.just("in"), st.integers(0, 9), st.integers(0, 2**63 - 1), st.just(1), st.none(), st.none(), st.just(())),
    timestamp_ms=st.none() | st.integers(0, 2**48),
    fetched_at=st.just(0.0),
)


@given(event=events, extracted=found, timing=timings, record=records)
def test_every_result_validates(
    event: ReviewEvent, extracted: Extracted, timing: Timing, record: SourceRecord | None
) -> None:
    """And has no field that the schema does not name."""
    model = ModelUsed("rexuninlu", "1", "serving_default")
    task = Task("own-task_1", "extract", {"甲": None})
    RESULT.validate(json.loads(encode_json(result_fields(event, task, extracted, model, timing, 7, record))))


@pytest.mark.parametrize("name", ["review_event", "extraction_result"])
def test_json_and_avro_have_the_same_fields(name: str) -> None:
    """Of the results also those of the records within."""
    avro = json.loads(shipped(f"schemas/avro/{name}.avsc").read_text("utf-8"))
    schema = contract(name)
    assert {field["name"] for field in avro["fields"]} == set(schema["properties"])
    inner = {"model": "Model", "record": "Record", "timing": "Timing"} if name == "extraction_result" else {}
    for field in avro["fields"]:
        if field["name"] in inner:
            kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
            (record,) = (kind for kind in kinds if isinstance(kind, dict))
            assert {each["name"] for each in record["fields"]} == set(schema["properties"][field["name"]]["properties"])


def test_every_dead_letter_validates() -> None:
    """In full, and with all that a topic may refuse left out."""
    record = SourceRecord("in", 0, 5, 1, b"k" * 200, b"{" * 99, (("shop", b"x" * 99),), 10**15, 0.0)
    failure = Failure("extract", "Poison", "no", 1, "a.B", "c.D", "trace", 2, "ner,nli", 2, "rexuninlu", "1")
    letters = DeadLetters("dead", "group", "0.1.0", stack_traces=True)
    for failed in (failure, Failure("decode", "InvalidJson", "no", 1)):
        whole = letters.of(record, failed, 2)
        check_dead_letter(whole.headers, carried=["shop"])
        check_dead_letter(letters.bare(record, failed).headers, carried=[])
        least: Output | None = whole
        while least is not None:
            check_dead_letter(least.headers, carried=["shop"])
            least = smaller(least)
        check_dead_letter(without_timestamp(with_key(whole)).headers, carried=["shop"])


def test_the_readme_has_every_field() -> None:
    """For people, who do not read JSON Schema."""
    readme = (shipped("schemas/json").parent / "README.md").read_text("utf-8")
    named = set(re.findall(r"`([\w.-]+)`", readme))
    result = contract("extraction_result")["properties"]
    inner = {name for part in ("model", "record", "timing") for name in result[part]["properties"]}
    fact = result["extractions"]["items"]["items"]["properties"]
    assert {*contract("review_event")["properties"], *result, *fact, *inner} - named == set()
