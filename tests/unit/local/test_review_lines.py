"""Lines of a file become records."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from consumer.local.line_stream import InputError
from consumer.local.review_files import InputForm
from consumer.local.review_lines import ReviewLines

if TYPE_CHECKING:
    from pathlib import Path

JSON = InputForm()


def lines(path: Path, content: str, *, form: InputForm = JSON, **options: object) -> ReviewLines:
    path.write_text(content, "utf-8")
    return ReviewLines(str(path), form, **options)  # type: ignore[arg-type]


def test_a_json_line_is_sent_byte_for_byte(tmp_path: Path) -> None:
    """Nothing rewrites a line that needs no change, not even its spaces."""
    line = '{ "text":"锅底不粘",  "product_id": "pan-1" }'
    (record,) = lines(tmp_path / "reviews.jsonl", line + "\r\n", key_field="product_id")
    assert (record.key, record.value) == (b"pan-1", line.encode())


def test_keys_of_other_types_are_their_json(tmp_path: Path) -> None:
    """A number is a key as it is written; a missing or null field is no key."""
    records = lines(tmp_path / "r", '{"k": 17}\n{"k": null}\n{}\n{"k": true}\n', key_field="k")
    assert [record.key for record in records] == [b"17", None, None, b"true"]


def test_the_id_field_becomes_the_event_id(tmp_path: Path) -> None:
    """The field is copied, as text, and stays where it was."""
    (record,) = lines(tmp_path / "r", '{"review_id": 5, "text": "好"}\n', form=InputForm(id_field="review_id"))
    assert json.loads(record.value or b"") == {"review_id": 5, "text": "好", "event_id": "5"}


def test_repeated_events_keep_ids_of_their_own(tmp_path: Path) -> None:
    """From the second time on the id says which time it is, so that results are not taken for copies."""
    source = lines(tmp_path / "r", '{"event_id": "a"}\n{"text": "没有编号"}\n')
    source.repeat = 3
    assert [json.loads(record.value or b"").get("event_id") for record in source] == [
        "a",
        None,
        "a~2",
        None,
        "a~3",
        None,
    ]


def test_bad_lines_are_named_and_not_sent(tmp_path: Path) -> None:
    """What is no JSON object is reported under its line number; empty lines are nothing."""
    source = lines(tmp_path / "r", '{"a":1}\n\n[1]\n{"b"\n   \n{"c":3}\n')
    assert [record.label for record in source] == ["line 1", "line 6"]
    assert {number: reason.partition(":")[0].partition(";")[0] for number, reason in source.bad_lines.items()} == {
        3: "not a JSON object",
        4: "not JSON",
    }


def test_text_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    """Format text looks into nothing: bytes that are not UTF-8 pass too."""
    path = tmp_path / "reviews.txt"
    path.write_bytes("屏幕很亮\n".encode() + b"\xff{\n")
    records = list(ReviewLines(str(path), InputForm("text"), headers=(("h", b"1"),)))
    assert [record.value for record in records] == ["屏幕很亮".encode(), b"\xff{"]
    assert records[0].key is None
    assert records[0].headers == (("h", b"1"),)


def test_gzipped_files_are_read(tmp_path: Path) -> None:
    """A name that ends in .gz is unpacked; a damaged one raises."""
    path = tmp_path / "reviews.jsonl.gz"
    path.write_bytes(gzip.compress('{"text": "包装完好"}\n'.encode()))
    assert len(list(ReviewLines(str(path)))) == 1
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError):
        list(ReviewLines(str(path)))


def test_the_limit_counts_over_all_repetitions(tmp_path: Path) -> None:
    """The limit is on records sent, wherever they come from."""
    source = lines(tmp_path / "r", '{"a":1}\n{"b":2}\n')
    source.repeat, source.limit = 5, 3
    assert [record.label for record in source] == ["line 1", "line 2", "line 1 (time 2)"]


def test_half_a_surrogate_pair_survives_a_rewrite(tmp_path: Path) -> None:
    """What only an escape can express stays an escape."""
    (record,) = lines(tmp_path / "r", r'{"review_id": 1, "text": "\ud83d"}', form=InputForm(id_field="review_id"))
    assert json.loads(record.value or b"")["text"] == "\ud83d"


def test_rows_of_a_table_are_events_with_their_columns(tmp_path: Path) -> None:
    """Columns of an event's names are its fields, empty cells are nothing, all others attributes; the key is one."""
    form = InputForm("csv", "content", "no")
    content = '\ufeffno,content,product_id,stars,kind\n7,"好,\n很好",p-1,5,\n8,差,,1,book\n'
    first, second = lines(tmp_path / "r", content, form=form, key_field="product_id")
    assert (first.label, first.key, json.loads(first.value or b"")) == (
        "line 2",
        b"p-1",
        {"text": "好,\n很好", "product_id": "p-1", "event_id": "7", "attributes": {"stars": "5"}},
    )
    assert (second.label, second.key) == ("line 4", None)
    assert json.loads(second.value or b"")["attributes"] == {"stars": "1", "kind": "book"}


def test_the_text_field_is_renamed_in_json_and_lines_of_text_become_events_if_asked(tmp_path: Path) -> None:
    """Whatever the file, what is sent is an event of this product."""
    (record,) = lines(tmp_path / "r", '{"content": "好", "n": 1}\n', form=InputForm(text_field="content"))
    assert json.loads(record.value or b"") == {"n": 1, "text": "好"}
    source = lines(tmp_path / "r", "好\n差\n", form=InputForm("text"), as_events=True)
    assert [json.loads(record.value or b"") for record in source] == [{"text": "好"}, {"text": "差"}]
