"""Records as lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from consumer.cli.record_lines import record_json
from consumer.events import SourceRecord

if TYPE_CHECKING:
    from consumer.events import Header


def record(value: bytes | None, headers: tuple[Header, ...] = (), key: bytes | None = None) -> SourceRecord:
    return SourceRecord("reviews.extracted", 2, 7, 0, key, value, headers, 1_700_000_000_000, 0.0)


def result(*paths: list[dict[str, Any]], **more: Any) -> bytes:
    return json.dumps(
        {"event_id": "e-1", "task": "product_features", "extractions": list(paths), **more}, ensure_ascii=False
    ).encode()


def test_json_of_a_result_is_its_own() -> None:
    """The value as it is, on one line whatever its line breaks."""
    value = result([{"type": "a", "span": "b", "score": 0.1234}])
    assert record_json(record(value)) == value.decode()
    pretty = json.dumps(json.loads(value), indent=2).encode()
    assert json.loads(record_json(record(pretty))) == json.loads(value)
    assert "\n" not in record_json(record(pretty))


def test_json_of_other_records_loses_nothing() -> None:
    """Headers stay a list, null and bytes that are not UTF-8 included."""
    line = json.loads(record_json(record(b"\xff", (("h", b"1"), ("h", None), ("h", b"\xfe")), "键".encode())))
    assert line == {
        "topic": "reviews.extracted",
        "partition": 2,
        "offset": 7,
        "timestamp": 1_700_000_000_000,
        "key": "键",
        "headers": [["h", "1"], ["h", None], ["h", {"base64": "/g=="}]],
        "value_base64": "/w==",
    }
