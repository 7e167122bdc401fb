"""Columns of a database as connectors write them: times without a zone, and texts in columns of bytes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from consumer.codecs.mapping import FieldMapping
from consumer.config.route import RouteConfig
from consumer.events import BadInput, Milliseconds, SourceRecord

if TYPE_CHECKING:
    from consumer.config.route import Preset

EIGHT = 1_793_520_000_000
"""2026-11-01T08:00:00Z; in Shanghai it was that eight hours before."""
HOURS = 8 * 3_600_000
LOCAL = {"from": "at", "utc_offset": "+08:00"}


def read(preset: Preset, value: Any, **fields: Any) -> Any:
    record = SourceRecord("in", 0, 7, 1, b"k", b"", (), 1_700_000_000_123, 0.0)
    route = RouteConfig(input="in", preset=preset, fields={"text": "content", **fields})
    return FieldMapping(route).read(value, record, "in-0-7")


def change(after: dict[str, Any], **types: dict[str, Any]) -> dict[str, Any]:
    """A change event of Debezium, with the types of its row if some are named."""
    payload = {"before": None, "after": {"content": "好用", **after}, "source": {"ts_ms": EIGHT}, "op": "c"}
    if not types:
        return payload
    row = [{"field": name, **each} for name, each in types.items()]
    struct = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": row}]}
    return {"schema": struct, "payload": payload}


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        (EIGHT, "io.debezium.time.Timestamp"),
        (EIGHT * 1000, "io.debezium.time.MicroTimestamp"),
        (EIGHT * 10**6, "io.debezium.time.NanoTimestamp"),
    ],
)
def test_a_datetime_is_in_the_zone_that_the_route_says(at: int, kind: str) -> None:
    """MySQL's DATETIME comes as a number that counts in its own zone."""
    value = change({"at": at}, at={"type": "int64", "name": kind})
    assert read("debezium", value, created_at=LOCAL).created_at == EIGHT - HOURS
    assert read("debezium", value, created_at="at").created_at == EIGHT


def test_a_datetime_without_a_schema_too() -> None:
    """Only its unit may have to be said; what has a zone is a text, and keeps it."""
    assert read("debezium", change({"at": EIGHT}), created_at=LOCAL).created_at == EIGHT - HOURS
    micros = {**LOCAL, "unit": "microseconds"}
    assert read("debezium", change({"at": EIGHT * 1000}), created_at=micros).created_at == EIGHT - HOURS
    assert read("debezium", change({"at": "2026-11-01T08:00:00Z"}), created_at=LOCAL).created_at == EIGHT


def test_a_day_begins_in_its_zone() -> None:
    value = change({"at": 20_758}, at={"type": "int32", "name": "io.debezium.time.Date"})
    assert read("debezium", value, created_at=LOCAL).created_at == EIGHT - 2 * HOURS


def test_numbers_that_count_in_utc_stay() -> None:
    """Connect's timestamps do, seconds since 1970, and the record's own time."""
    stamp = {"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp"}
    value = {
        "schema": {"type": "struct", "fields": [{"field": "at", **stamp}]},
        "payload": {"at": EIGHT, "content": "好用"},
    }
    assert read("connect", value, created_at=LOCAL).created_at == EIGHT
    seconds = {**LOCAL, "unit": "seconds"}
    maxwell = {"type": "insert", "at": EIGHT // 1000, "data": {"content": "好用"}}
    assert read("maxwell", maxwell, created_at=seconds).created_at == EIGHT
    its_own = {"from": "$timestamp", "utc_offset": "+08:00"}
    assert read("debezium", change({}), created_at=its_own).created_at == 1_700_000_000_123


def test_a_time_from_avro_stays() -> None:
    assert read("debezium", change({"at": Milliseconds(EIGHT)}), created_at=LOCAL).created_at == EIGHT


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_text_in_a_column_of_bytes_is_decoded() -> None:
    """Base64 of a review is not what it says. An id of bytes is no text, and stays as it was sent."""
    key = encoded(bytes(range(200, 216)))
    row = {"id": key, "content": encoded("屏幕很清晰".encode()), "note": encoded(b"\xff")}
    binary = {"type": "bytes", "optional": True}
    event = read(
        "debezium", change(row, id=binary, content=binary, note=binary), event_id="id", attributes={"n": "note"}
    )
    assert (event.text, event.event_id, event.attributes) == ("屏幕很清晰", key, {"n": row["note"]})
    struct = {"type": "struct", "fields": [{"field": "content", **binary}]}
    assert read("connect", {"schema": struct, "payload": {"content": row["content"]}}).text == "屏幕很清晰"


@pytest.mark.parametrize(("content", "reason"), [(encoded(b"\xff\xfe"), "InvalidUtf8"), ("***", "InvalidEvent")])
def test_bytes_that_are_no_text(content: str, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        read("debezium", change({"content": content}, content={"type": "bytes"}))
    assert caught.value.reason == reason
