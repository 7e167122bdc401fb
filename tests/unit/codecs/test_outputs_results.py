"""Results: fields, bytes, headers."""

from __future__ import annotations

import hashlib
import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from avro_frames import decode_result
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.avro_codec import encode_avro
from consumer.codecs.outputs import (
    DROPPED,
    ModelUsed,
    Routes,
    Timing,
    Trace,
    encode_json,
    result_fields,
    result_headers,
    result_id,
)
from consumer.config.route import RouteConfig
from consumer.events import BadInput, ReviewEvent, SourceRecord
from consumer.extraction.task import Extracted, Fact, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRecord = Callable[..., SourceRecord]

TASK = Task("sentiment", "classify", {"正向情感": None, "负向情感": None})
NER = Task("ner", "extract", {"人物": None})
EVENT = ReviewEvent("e-1", "杯盖密封好。", product_id="p", created_at=5, attributes={"shop": "南"})
MODEL = ModelUsed("rexuninlu", "3", "serving_default")
TIMING = Timing(1.5, 20.25, 30.0, 2)
FOUND = Extracted(
    paths=((Fact("属性词", "杯盖", 0, 2, 0.9871), Fact("正向情感(情感词)", None, None, None, 0.75)),),
    warnings=("a type was skipped",),
    model_calls=2,
)


def test_the_fields_of_a_result(make_record: MakeRecord) -> None:
    """A result says what was found, by which model, in which record, of which event, and how long it took."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 1_700_000_000_500, make_record())
    assert fields == {
        "result_id": result_id("e-1", TASK),
        "event_id": "e-1",
        "task": "sentiment",
        "task_fingerprint": TASK.fingerprint,
        "extractions": [
            [
                {"type": "属性词", "span": "杯盖", "start": 0, "end": 2, "score": 0.9871},
                {"type": "正向情感(情感词)", "span": None, "start": None, "end": None, "score": 0.75},
            ]
        ],
        "model": {"name": "rexuninlu", "version": "3", "signature": "serving_default"},
        "record": {"topic": "reviews.raw", "partition": 3, "offset": 41, "timestamp": 1_700_000_000_000},
        "product_id": "p",
        "source": None,
        "language": None,
        "created_at": 5,
        "attributes": {"shop": "南"},
        "timing": {"queued_ms": 1.5, "model_ms": 20.25, "total_ms": 30.0, "model_calls": 2},
        "warnings": ["a type was skipped"],
        "processed_at": 1_700_000_000_500,
    }


def test_outside_kafka_there_is_no_record_and_no_queue() -> None:
    """The extract command's results lack what only a stream has."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, Timing(None, 1.0, 1.0, 1), 0, None)
    assert "record" not in fields
    assert "queued_ms" not in fields["timing"]


def test_json_is_one_readable_line(make_record: MakeRecord) -> None:
    """Chinese stays readable, and a line is a result."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 7, make_record())
    value = encode_json(fields)
    assert json.loads(value) == fields
    assert "杯盖".encode() in value
    assert b"\n" not in value


def test_a_result_holds_no_more_memory_than_its_bytes(make_record: MakeRecord) -> None:
    """It waits until it is durable, thousands at a time; the library's own value keeps the room it was written in."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 7, make_record())
    encode_json(fields)
    tracemalloc.start()
    try:
        value = encode_json(fields)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 2 * len(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_cannot_hold_a_score_that_is_no_number(number: float) -> None:
    """A NaN must not reach a topic as something that is not JSON."""
    found = Extracted(paths=((replace(FOUND.paths[0][0], score=number),),), warnings=(), model_calls=1)
    with pytest.raises(ValueError, match="JSON"):
        encode_json(result_fields(EVENT, TASK, found, MODEL, TIMING, 7, None))
    with pytest.raises(ValueError, match="JSON"):
        encode_json(result_fields(EVENT, TASK, FOUND, MODEL, replace(TIMING, model_ms=number), 7, None))


def test_json_holds_any_integer() -> None:
    """The library knows 64 bits only."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 2**70, None)
    assert json.loads(encode_json(fields)) == fields


def test_half_a_surrogate_pair_is_no_json() -> None:
    """Nobody could read it; event and text were mended when they were decoded."""
    with pytest.raises(ValueError, match="surrogate"):
        encode_json(result_fields(replace(EVENT, source="\ud800"), TASK, FOUND, MODEL, TIMING, 7, None))


def test_half_a_surrogate_pair_in_a_task_has_an_id_too() -> None:
    """Found by fuzzing: task files and the paths that a line of `extract` allows may hold one."""
    names = [Task("t", "extract", {name: None}) for name in ("a\ud800", "a\udfff")]
    names.append(replace(TASK, legal_paths=frozenset({("\ud800",)})))
    assert len({result_id("e-1", task) for task in [*names, TASK]}) == 4


@pytest.mark.parametrize("event_id", ["e-1", "", 'a "quote" \\ and\n', "第一条", "half a pair \ud800"])
def test_the_id_is_the_digest_of_a_json_array(event_id: str) -> None:
    """Consumers have stored such ids: no version may make others."""
    array = json.dumps([event_id, TASK.name, TASK.fingerprint])
    assert result_id(event_id, TASK) == hashlib.sha256(array.encode()).hexdigest()


def test_the_id_depends_on_event_task_and_schema_only() -> None:
    """Redelivery gives the same id; another event, name or schema gives another."""
    base = result_id("e-1", TASK)
    assert result_id("e-1", Task("sentiment", "classify", {"负向情感": None, "正向情感": None})) == base
    others = [
        result_id("e-2", TASK),
        result_id("e-1", replace(TASK, name="mood")),
        result_id("e-1", replace(TASK, schema={"好": None})),
        result_id("e-1", replace(TASK, threshold=0.5)),
    ]
    assert len({base, *others}) == 5
    assert len(base) == 64


def test_headers_are_carried_over_in_order() -> None:
    """Names may repeat, values may be null or no UTF-8; what described the review's format does not survive."""
    carried = (
        ("shop", b"1"),
        ("Content-Type", b"application/json"),
        ("shop", None),
        ("__value_schema_id", b"\x01"),
        ("raw", b"\xff"),
        ("rexstream-task", b"stale"),
        ("rexstream-task-fingerprint", b"stale"),
        ("rexstream-result-id", b"stale"),
        ("traceparent", b"old"),
        ("tracestate", b"v=1"),
    )
    trace = Trace("a" * 32, f"00-{'a' * 32}-{'b' * 16}-01", continued=True)
    assert result_headers(carried, NER, "id-1", trace) == (
        ("shop", b"1"),
        ("shop", None),
        ("raw", b"\xff"),
        ("tracestate", b"v=1"),
        ("rexstream-task", b"ner"),
        ("rexstream-task-fingerprint", NER.fingerprint.encode()),
        ("rexstream-result-id", b"id-1"),
        ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01".encode()),
    )


DESCRIBES_THE_VALUE = (
    "Content-Type",
    "contentType",
    "content_type",
    "originalContentType",
    "Content-Encoding",
    "content-length",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_specversion",
    "ce_time",
    "ce_subject",
    "ce_datacontenttype",
    "ce_dataschema",
    "CE_partitionkey",
    "ce-id",
    "cloudEvents:id",
    "cloudEvents_type",
    "apicurio.value.globalId",
    "apicurio.value.contentId",
    "apicurio.value.encoding",
    "apicurio.value.msgType",
    "__TypeId__",
    "__ContentTypeId__",
    "__KeyTypeId__",
    "__value_schema_id",
    "value.schema.version.id",
)
DESCRIBES_ANYTHING_ELSE = (
    "__key_schema_id",
    "key.schema.version.id",
    "apicurio.key.globalId",
    "__Key_TypeId__",
    "spring_json_header_types",
    "correlation-id",
    "ce",
    "centre",
    "content",
    "apicurio",
    "__op",
)


@pytest.mark.parametrize("name", DESCRIBES_THE_VALUE)
def test_what_describes_the_reviews_value_does_not_travel(name: str) -> None:
    """A result is another value: with these a reader would take it for one of the producer's class, id or encoding."""
    trace = Trace("a" * 32, f"00-{'a' * 32}-{'b' * 16}-01", continued=True)
    carried = ((name, b"1"), (name.upper(), b"2"), (name.lower(), None), ("shop", b"3"))
    assert result_headers(carried, NER, "id-1", trace)[:-4] == (("shop", b"3"),)


@pytest.mark.parametrize("name", DESCRIBES_ANYTHING_ELSE)
def test_what_describes_the_key_or_nothing_of_it_travels(name: str) -> None:
    """The key is the review's own."""
    trace = Trace("a" * 32, f"00-{'a' * 32}-{'b' * 16}-01", continued=False)
    assert result_headers(((name, b"1"),), NER, "id-1", trace)[:-4] == ((name, b"1"),)


def test_a_route_may_drop_more_headers() -> None:
    """By name in any case, or by what they begin with; the others of the list are dropped all the same."""
    routes = Routes(
        [
            RouteConfig(input="some", drop_headers=("X-Shop", "__Debezium.*")),
            RouteConfig(input="all", drop_headers=("*",)),
            RouteConfig(input="none"),
        ],
        {},
    )
    trace = Trace("a" * 32, f"00-{'a' * 32}-{'b' * 16}-01", continued=True)
    carried = [
        ("x-shop", b"1"),
        ("X-SHOPS", b"2"),
        ("__debezium.newkey", b"3"),
        ("ce_id", b"4"),
        ("tracestate", b"a=b"),
    ]

    def kept(topic: str) -> list[str]:
        headers = result_headers(carried, NER, "id-1", trace, routes.dropped[topic])
        own = ["rexstream-task", "rexstream-task-fingerprint", "rexstream-result-id", "traceparent"]
        assert [name for name, _ in headers[-4:]] == own
        return [name for name, _ in headers[:-4]]

    assert kept("some") == ["X-SHOPS", "tracestate"]
    assert kept("all") == []
    assert kept("none") == ["x-shop", "X-SHOPS", "__debezium.newkey", "tracestate"]


def test_the_document_lists_what_does_not_travel() -> None:
    """All of it, in one place, each name as it is in code."""
    text = (Path(__file__).parents[3] / "docs/delivery.md").read_text("utf-8").lower()
    section = text.partition("## headers of a result")[2].partition("\n## ")[0]
    names = {*DROPPED.names, *(f"{prefix}*" for prefix in DROPPED.prefixes)}
    assert sorted(name for name in names if f"`{name}`" not in section) == []


@pytest.mark.parametrize("timestamp", [253_402_300_800_000, -62_135_596_800_001, 1_700_000_000_000_000, 2**62])
def test_a_records_timestamp_of_no_year_is_left_out(make_record: MakeRecord, timestamp: int) -> None:
    """A producer that sends microseconds must not make a result that Avro readers raise for."""
    record = replace(make_record(), timestamp_ms=timestamp)
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 7, record)
    assert fields["record"]["timestamp"] is None
    assert fields["warnings"][-1] == "field-dropped: record.timestamp is a time outside the years 1 to 9999"
    for within in (253_402_300_799_999, -62_135_596_800_000, 0):
        fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 7, replace(record, timestamp_ms=within))
        assert (fields["record"]["timestamp"], fields["warnings"]) == (within, list(FOUND.warnings))


def test_the_state_of_a_broken_trace_is_dropped() -> None:
    """tracestate belongs to its traceparent."""
    trace = Trace("a" * 32, f"00-{'a' * 32}-{'b' * 16}-00", continued=False)
    kept = result_headers((("tracestate", b"v=1"),), NER, "id-1", trace)
    assert "tracestate" not in dict(kept)


words = st.text(st.characters(codec="utf-8"), max_size=8)
optional_words = st.none() | words
millis = st.integers(0, 2**48)
durations = st.floats(0, 1e9)
facts = st.builds(
    Fact,
    type=words,
    span=optional_words,
    start=st.none() | st.integers(0, 50_000),
    end=st.none() | st.integers(0, 50_000),
    score=st.floats(0, 1).map(lambda score: round(score, 4)),
)
extracted = st.builds(
    Extracted,
    paths=st.lists(st.lists(facts, max_size=3).map(tuple), max_size=3).map(tuple),
    warnings=st.lists(words, max_size=2).map(tuple),
    model_calls=st.integers(0, 4096),
)
events = st.builds(
    ReviewEvent,
    event_id=words,
    text=words,
    product_id=optional_words,
    source=optional_words,
    language=optional_words,
    created_at=st.none() | st.integers(-(2**63), 2**63 - 1),
    attributes=st.dictionaries(words, words, max_size=2),
)
timings = st.builds(Timing, st.none() | durations, durations, durations, st.integers(0, 2**31 - 1))
records = st.none() | st.builds(
    SourceRecord,
    topic=words,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    epoch=st.just(0),
    key=st.none(),
    value=st.none(),
    headers=st.just(()),
    timestamp_ms=st.none() | millis,
    fetched_at=st.just(0.0),
)


def full(fields: dict[str, Any]) -> dict[str, Any]:
    """Avro has no missing fields, only null ones."""
    return {"record": None, **fields, "timing": {"queued_ms": None, **fields["timing"]}}


@given(
    event=events,
    found=extracted,
    timing=timings,
    processed_at=millis,
    record=records,
    number=st.none() | st.integers(0, 2**32 - 1),
)
def test_avro_round_trip(
    event: ReviewEvent,
    found: Extracted,
    timing: Timing,
    processed_at: int,
    record: SourceRecord | None,
    number: int | None,
) -> None:
    """Avro gives back every field of every result, framed or bare, and JSON the same."""
    fields = result_fields(event, TASK, found, MODEL, timing, processed_at, record)
    value = encode_avro(fields, number)
    assert decode_result(value, number is not None) == full(fields)
    value = encode_json(fields)
    assert json.loads(value) == fields
    # As Python's own writer has it, but for how the exponents of tiny numbers look.
    written = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    if b"e-" not in written:
        assert value == written


def test_the_frame_is_confluents() -> None:
    """A zero, then the id in four bytes, the highest first; ids use all 32 bits."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 7, None)
    datum = encode_avro(fields, None)
    assert encode_avro(fields, 258) == b"\x00\x00\x00\x01\x02" + datum
    assert encode_avro(fields, 2**32 - 1) == b"\x00\xff\xff\xff\xff" + datum


def test_a_damaged_result_is_told() -> None:
    """A reader of results learns of damage as a worker does."""
    fields = result_fields(EVENT, TASK, FOUND, MODEL, TIMING, 7, None)
    with pytest.raises(EOFError):
        decode_result(encode_avro(fields, None)[:-1], is_framed=False)
    with pytest.raises(BadInput):
        decode_result(b"\x01" + encode_avro(fields, 3)[1:], is_framed=True)
