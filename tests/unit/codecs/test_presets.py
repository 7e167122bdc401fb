"""Messages as Debezium, Connect, CloudEvents, Canal and Maxwell write them, and what of them is a review."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from consumer.codecs.mapping import FieldMapping, Rows
from consumer.config.route import Preset, RouteConfig
from consumer.events import BadInput, ReviewEvent, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.events import Header

CONTENT = {"text": "content", "event_id": "id"}
ROW = {"id": 1004, "content": "鞋底软，穿着舒服", "item": "sku-7", "stars": 5}
SOURCE = {
    "version": "2.7.0.Final",
    "connector": "mysql",
    "name": "shop",
    "ts_ms": 1_700_000_000_000,
    "snapshot": "false",
    "db": "shop",
    "table": "reviews",
    "server_id": 223344,
    "file": "mysql-bin.000003",
    "pos": 805,
    "row": 0,
}


def read(
    preset: Preset | None, value: Any, *headers: Header, fields: Mapping[str, Any] | None = None, key: bytes = b"k"
) -> Any:
    """What the mapping makes of a value. Rows by number, where there may be several."""
    record = SourceRecord("in", 0, 7, 1, key, b"", headers, 1_700_000_000_123, 0.0)
    mapping = FieldMapping(RouteConfig(input="in", preset=preset, fields=dict(CONTENT if fields is None else fields)))
    found = mapping.read(value, record, "in-0-7")
    return dict(found.events(0, 2000)) if isinstance(found, Rows) else found


def change(op: str, before: Any, after: Any) -> dict[str, Any]:
    """A change event of Debezium."""
    return {
        "before": before,
        "after": after,
        "source": SOURCE,
        "op": op,
        "ts_ms": 1_700_000_000_100,
        "transaction": None,
    }


def with_schema(payload: Any, *fields: Mapping[str, Any]) -> dict[str, Any]:
    """As Connect's JSON converter writes it with schemas.enable=true."""
    row = {"type": "struct", "fields": list(fields), "optional": True, "name": "shop.reviews.Value", "field": "after"}
    whole = {"type": "struct", "fields": [{**row, "field": "before"}, row], "optional": False, "name": "shop.Envelope"}
    return {"schema": whole if isinstance(payload, dict) and "op" in payload else row, "payload": payload}


@pytest.mark.parametrize("op", ["c", "r", "u"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_debezium_rows_are_events(op: str, wrapped: bool) -> None:
    """With and without the schema; the envelope's own source is no source of a review."""
    value = change(op, None, ROW)
    event = read("debezium", with_schema(value) if wrapped else value)
    assert (event.event_id, event.text, event.source, event.warnings) == ("1004", ROW["content"], None, ())


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (change("d", ROW, None), "delete"),
        (change("t", None, None), "no_review"),
        ({"op": "m", "ts_ms": 1, "source": SOURCE, "message": {"prefix": "p", "content": "aGk="}}, "no_review"),
        ({"ts_ms": 1_700_000_000_000}, "no_review"),
        ({"ts_ms": 1, "ts_us": 1000, "ts_ns": 1_000_000}, "no_review"),
        ({"source": SOURCE, "ts_ms": 1, "databaseName": "shop", "ddl": "ALTER …", "tableChanges": []}, "no_review"),
        ({"status": "END", "id": "571:53195832", "ts_ms": 1, "event_count": 2, "data_collections": []}, "no_review"),
        ({**ROW, "__deleted": "true"}, "delete"),
        ({**ROW, "__deleted": True}, "delete"),
        ({**ROW, "__op": "d"}, "delete"),
        (None, "null_value"),
    ],
)
def test_debezium_says_what_is_no_review(value: Any, why: str, wrapped: bool) -> None:
    """Deletes, and what the connector writes for itself."""
    assert read("debezium", with_schema(value) if wrapped else value) == why


@pytest.mark.parametrize("preset", ["debezium", "connect"])
def test_a_payload_without_its_schema(preset: Preset) -> None:
    """As relays that drop the schema send it; a row with a column ``payload`` is a row."""
    payload: Any = change("c", None, ROW) if preset == "debezium" else ROW
    assert read(preset, {"payload": payload}).event_id == "1004"
    assert read(preset, {"payload": "好"}, fields={"text": "payload"}).text == "好"


def test_flattened_rows_of_debezium() -> None:
    """ExtractNewRecordState leaves the row; a column may be called op, or after."""
    row = {**ROW, "__deleted": "false", "__op": "u"}
    assert read("debezium", row).event_id == "1004"
    assert read("debezium", {**ROW, "op": "sold"}).event_id == "1004"


def test_debezium_times_and_decimals_by_the_schema() -> None:
    """A JSON value with its schema says what its numbers mean."""
    micro = {"field": "created_at", "type": "int64", "name": "io.debezium.time.MicroTimestamp"}
    scale = {"scale": "2", "connect.decimal.precision": "5"}
    price = {"field": "price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": scale}
    row = {**ROW, "created_at": 1_700_000_000_123_456, "price": base64.b64encode(b"\xfe\xd4").decode()}
    fields = {**CONTENT, "attributes": {"price": "price"}}
    event = read("debezium", with_schema(change("c", None, row), micro, price), fields=fields)
    assert (event.created_at, event.attributes) == (1_700_000_000_123, {"price": "-3.00"})
    assert event.warnings == ()
    day = {"field": "day", "type": "int32", "name": "io.debezium.time.Date"}
    # What a schema names needs no unit, and no unit of the route makes it another time.
    fields = {**CONTENT, "created_at": {"from": "day", "unit": "seconds"}}
    event = read("debezium", with_schema(change("c", None, {**ROW, "day": 19_675}), day), fields=fields)
    assert event.created_at == 19_675 * 86_400_000


@pytest.mark.parametrize("number", [b"\x03\xec", base64.b64encode(b"\x03\xec").decode()])
def test_numbers_of_any_scale_are_digits(number: Any) -> None:
    """As Debezium writes Oracle's NUMBER, in JSON and in Avro."""
    row = {**ROW, "id": {"scale": 0, "value": number}, "price": {"scale": 1, "value": number}, "odd": {"scale": 0}}
    for value in (change("c", None, row), row):
        event = read("debezium", value, fields={**CONTENT, "attributes": {"price": "price"}})
        assert (event.event_id, event.attributes, event.warnings) == ("1004", {"price": "100.4"}, ())
    odd = {**row, "id": {"scale": 0, "value": "***"}}
    assert read("debezium", odd).event_id == "in-0-7"


def test_mongodb_documents_are_text() -> None:
    """Debezium's connector for MongoDB writes the document as a JSON text."""
    document = json.dumps({"_id": {"$oid": "65"}, "content": "好用"}, ensure_ascii=False)
    fields = {"text": "content", "event_id": "_id.$oid"}
    event = read("debezium", change("c", None, document), fields=fields)
    assert (event.event_id, event.text) == ("65", "好用")
    with pytest.raises(BadInput) as caught:
        read("debezium", change("c", None, "{"), fields=fields)
    assert caught.value.reason == "InvalidJson"


def test_a_text_that_postgresql_did_not_log_again_is_no_review() -> None:
    """Its result stands; what the row was before gives it where the table logs that."""
    left = {**ROW, "content": "__debezium_unavailable_value"}
    assert read("debezium", change("u", None, left)) == "text_unavailable"
    assert read("debezium", change("u", {"id": 1004}, left)) == "text_unavailable"
    assert read("debezium", left) == "text_unavailable"
    assert read("debezium", change("u", ROW, left)).text == ROW["content"]


def test_paths_through_the_envelope_work_with_the_preset_too() -> None:
    """A path is looked for in the row, and then outwards."""
    for path in ("content", "after.content", "payload.after.content"):
        fields = {"text": path, "attributes": {"table": "source.table"}}
        event = read("debezium", with_schema(change("c", None, ROW)), fields=fields)
        assert (event.text, event.attributes) == (ROW["content"], {"table": "reviews"})


@pytest.mark.parametrize("value", [[], [ROW], "text", 5, True])
def test_debezium_without_an_object_is_refused(value: Any) -> None:
    """By what it is, and with the way out."""
    with pytest.raises(BadInput, match=r"preset is debezium.*fields") as caught:
        read("debezium", value)
    assert (caught.value.stage, caught.value.reason) == ("validate", "InvalidEvent")


def test_connect_rows() -> None:
    """Of a JDBC source: with its schema, without, and as a null value within it."""
    stamp = {"field": "created_at", "type": "int64", "name": "org.apache.kafka.connect.data.Timestamp", "version": 1}
    row = {**ROW, "created_at": 1_700_000_000_000}
    event = read("connect", with_schema(row, stamp))
    assert (event.event_id, event.created_at) == ("1004", 1_700_000_000_000)
    assert read("connect", row) == event
    assert read("connect", {"schema": None, "payload": None}) == "null_value"
    # Columns of these names are a row.
    assert read("connect", {"schema": "public", "payload": "x", "content": "好", "id": 1}).text == "好"
    # StringConverter's text within an envelope.
    schema = {"type": "string", "optional": False}
    assert read("connect", {"schema": schema, "payload": "好用"}, fields={}).text == "好用"


CLOUD = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/shop/reviews",
    "type": "com.shop.review.created",
    "time": "2026-11-01T08:00:00+08:00",
    "datacontenttype": "application/json",
}


def test_a_structured_cloudevent() -> None:
    """Its id, source and time are those of the review, unless the data has its own."""
    event = read("cloudevents", {**CLOUD, "data": {"text": "好用"}}, fields={})
    assert (event.event_id, event.source, event.text) == (CLOUD["id"], CLOUD["source"], "好用")
    assert event.created_at == 1_793_491_200_000
    own = {"text": "好用", "event_id": "e", "created_at": 5}
    event = read("cloudevents", {**CLOUD, "data": own}, fields={})
    assert (event.event_id, event.created_at, event.source) == ("e", 5, CLOUD["source"])


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("data", "path", "text"),
    [
        ({"data": "好用", "datacontenttype": "text/plain"}, None, "好用"),
        ({"data": '{"content": "好用"}'}, "content", "好用"),
        ({"data_base64": encoded('{"content": "好用"}')}, "content", "好用"),
        ({"data_base64": encoded("好用"), "datacontenttype": "text/plain"}, None, "好用"),
        ({"data": '{"content": 1', "datacontenttype": "text/plain"}, None, '{"content": 1'),
        ({"data_base64": "5aW9\r\n55So\n", "datacontenttype": "text/plain"}, None, "好用"),
        ({"data_base64": "eyJjb250ZW50IjoiPz8_In0"}, "content", "???"),
    ],
)
def test_forms_of_data(data: dict[str, Any], path: str | None, text: str) -> None:
    """An object, text, JSON within a text, and base64 of either."""
    fields = {} if path is None else {"text": path}
    assert read("cloudevents", {**CLOUD, **data}, fields=fields).text == text


@pytest.mark.parametrize("data", ["***", "gA=="])
def test_data_that_is_no_base64_or_no_text(data: str) -> None:
    """Is a dead letter."""
    with pytest.raises(BadInput):
        read("cloudevents", {**CLOUD, "data_base64": data}, fields={})


def test_a_binary_cloudevent() -> None:
    """The value is the data, the headers are the event; a later header of a name wins."""
    headers = tuple((f"ce_{name}", value.encode()) for name, value in CLOUD.items() if name != "datacontenttype")
    event = read("cloudevents", {"text": "好用"}, ("content-type", b"application/json"), *headers, fields={})
    assert (event.event_id, event.source, event.created_at) == (CLOUD["id"], CLOUD["source"], 1_793_491_200_000)
    assert read("cloudevents", {"text": "好用"}, fields={}).event_id == "in-0-7"
    assert read("cloudevents", {"text": "好用"}, ("CE-ID", b"e"), ("ce_id", None), fields={}).event_id == "e"
    assert read("cloudevents", {"text": "好用"}, ("cloudEvents:id", b"e"), fields={}).event_id == "e"


def test_a_structured_content_type_wants_a_cloudevent() -> None:
    """A text route would take the whole envelope for a review."""
    header = ("content-type", b"application/cloudevents+json; charset=UTF-8")
    with pytest.raises(BadInput, match="specversion"):
        read("cloudevents", {"text": json.dumps(CLOUD)}, header, fields={})


def test_a_batch_of_cloudevents_is_an_event_each() -> None:
    """What is wrong with one is its own."""
    batch = [{**CLOUD, "id": "a", "data": {"text": "好"}}, {**CLOUD, "id": "b"}, 5, {**CLOUD, "data": {"text": "差"}}]
    rows = read("cloudevents", batch, ("content-type", b"application/cloudevents-batch+json"), fields={})
    assert [row.event_id for row in rows.values() if isinstance(row, ReviewEvent)] == ["a", CLOUD["id"]]
    assert [number for number, row in rows.items() if isinstance(row, BadInput)] == [2, 3]
    assert read("cloudevents", [], ("content-type", b"application/cloudevents-batch+json"), fields={}) == "no_review"


def canal(kind: str, data: Any, **more: Any) -> dict[str, Any]:
    """A flat message of Canal."""
    return {
        "data": data,
        "database": "shop",
        "es": 1_700_000_000_000,
        "id": 9,
        "isDdl": False,
        "mysqlType": {"id": "bigint", "content": "text"},
        "old": None,
        "pkNames": ["id"],
        "sql": "",
        "sqlType": {"id": -5, "content": 2005},
        "table": "reviews",
        "ts": 1_700_000_000_500,
        "type": kind,
        **more,
    }


def test_rows_of_canal_are_events_of_their_own() -> None:
    """Their columns are text. Without a mapped id each has its number behind the record's."""
    data = [
        {"id": "1", "content": "好用", "at": "2026-11-01 08:00:00"},
        {"id": "2", "content": None},
        {"content": "差"},
    ]
    fields = {"text": "content", "created_at": {"from": "at", "utc_offset": "+08:00"}, "attributes": {"t": "table"}}
    rows = read("canal", canal("INSERT", data), fields=fields)
    assert rows[1] == ReviewEvent("in-0-7#1", "好用", created_at=1_793_491_200_000, attributes={"t": "reviews"})
    assert (rows[2].reason, rows[2].message) == (
        "MissingText",
        "the event has no text: path content leads to null; compare fields.text of the route with what is sent",
    )
    assert rows[3].event_id == "in-0-7#3"
    assert {number: row.event_id for number, row in read("canal", canal("UPDATE", data[:1])).items()} == {1: "1"}


@pytest.mark.parametrize("source", ["no", "message", "$key", "$headers.h", ["no", "$timestamp"], "ts"])
def test_no_two_rows_have_one_id(source: Any) -> None:
    """Where the id is that of the record, or of the message around the rows, their numbers are behind it."""
    data = [{"content": "好"}, {"content": "差", "no": None}]
    value = canal("INSERT", data, message="m")
    rows = read("canal", value, ("h", b"h"), fields={"text": "content", "event_id": source})
    ids = [row.event_id for row in rows.values()]
    assert [each.rpartition("#")[2] for each in ids] == ["1", "2"]
    batch = [{**CLOUD, "id": "a", "data": {"text": "好"}}, {**CLOUD, "id": "b", "data": {"text": "好"}}]
    assert [row.event_id for row in read("cloudevents", batch, fields={"event_id": "id"}).values()] == ["a", "b"]


def test_a_null_column_is_not_what_has_its_name_around_the_row() -> None:
    """A message of Canal has an id of its own."""
    rows = read("canal", canal("INSERT", [{"content": "好", "id": None}, {"content": "好", "id": "5"}]))
    assert [row.event_id for row in rows.values()] == ["in-0-7#1", "5"]
    # But a text in the row does not hide what a longer path means.
    fields = {"text": "content", "attributes": {"table": "source.table"}}
    assert read("debezium", change("c", None, {**ROW, "source": "app"}), fields=fields).attributes == {
        "table": "reviews"
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (canal("DELETE", [ROW]), "delete"),
        (canal("delete", [ROW]), "delete"),
        (canal("QUERY", None, isDdl=True), "no_review"),
        (canal("ALTER", None, isDdl=True), "no_review"),
        (canal("TRUNCATE", None), "no_review"),
        (canal("TIDB_WATERMARK", None, _tidb={"watermarkTs": 4}), "no_review"),
        (canal("INSERT", None), "no_review"),
        (None, "null_value"),
    ],
)
def test_canal_says_what_is_no_review(value: Any, why: str) -> None:
    """Deletes, statements, and what a replication writes for itself."""
    assert read("canal", value) == why


@pytest.mark.parametrize(
    "value", [{"text": "好"}, [], {"type": "INSERT"}, {"type": 5, "data": []}, canal("INSERT", {"a": 1})]
)
def test_what_is_not_of_canal(value: Any) -> None:
    """Is refused by name."""
    with pytest.raises(BadInput, match="preset is canal"):
        read("canal", value)


def test_too_many_rows() -> None:
    """A bound on what one record can become."""
    assert len(read("canal", canal("INSERT", [ROW] * 1000))) == 1000
    with pytest.raises(BadInput, match=r"1001 rows; at most 1000") as caught:
        read("canal", canal("INSERT", [ROW] * 1001))
    assert caught.value.reason == "TooManyRows"


def maxwell(kind: str, **more: Any) -> dict[str, Any]:
    """A message of Maxwell."""
    return {"database": "shop", "table": "reviews", "type": kind, "ts": 1_700_000_000, "xid": 1, "commit": True, **more}


@pytest.mark.parametrize("kind", ["insert", "update", "bootstrap-insert"])
def test_rows_of_maxwell(kind: str) -> None:
    """The id may be that of its key, whose names have dots."""
    key = json.dumps({"database": "shop", "table": "reviews", "pk.id": 1004}).encode()
    fields = {"text": "content", "event_id": r"$key.pk\.id", "created_at": {"from": "ts", "unit": "seconds"}}
    event = read("maxwell", maxwell(kind, data=ROW), fields=fields, key=key)
    assert (event.event_id, event.text, event.created_at) == ("1004", ROW["content"], 1_700_000_000_000)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("delete", "delete"),
        ("bootstrap-start", "no_review"),
        ("bootstrap-complete", "no_review"),
        ("table-alter", "no_review"),
        ("database-create", "no_review"),
    ],
)
def test_maxwell_says_what_is_no_review(kind: str, why: str) -> None:
    """Deletes, and what it writes of tables."""
    assert read("maxwell", maxwell(kind, data=ROW)) == why


def test_times_that_a_schema_names_are_of_the_type_that_needs_no_unit() -> None:
    """Nothing converts them a second time."""
    stamp = {"field": "at", "type": "int64", "name": "io.debezium.time.NanoTimestamp"}
    fields = {**CONTENT, "attributes": {"at": "at"}}
    event = read("connect", with_schema({**ROW, "at": 1_700_000_000_123_456_789}, stamp), fields=fields)
    assert event.attributes == {"at": "1700000000123"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "struct", "fields": [5, None, {"field": {}}, {"field": "id", "name": ["x"]}]},
        {"type": "struct", "fields": [{"field": "id", "name": "org.apache.kafka.connect.data.Decimal"}]},
        {"type": "struct", "fields": {"id": 1}},
        {"type": "struct"},
    ],
)
def test_a_schema_that_makes_no_sense_changes_nothing(schema: Any) -> None:
    """It is only a description; what it describes is there."""
    assert read("connect", {"schema": schema, "payload": ROW}).event_id == "1004"
