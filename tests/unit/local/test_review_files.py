"""Files of reviews: formats, encodings, and rows as they arrive."""

from __future__ import annotations

import gzip
import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from consumer.events import BadInput
from consumer.local.line_stream import InputError
from consumer.local.review_files import CHUNK_ROWS, InputForm, ReviewFile, open_reviews

if TYPE_CHECKING:
    from pathlib import Path

TABLE = '编号,评论内容,stars\n1,屏幕很亮,5\n2,"客服说""等""，\n等了三天",1\n'
ROWS = [("2", "屏幕很亮", "5"), ("3", '客服说"等"，\n等了三天', "1")]


def reviews(content: bytes, form: InputForm) -> ReviewFile:
    return ReviewFile(io.BytesIO(content), form)


def contents(content: bytes, form: InputForm | None = None) -> list[list[bytes]]:
    return [[row.content for row in chunk] for chunk in reviews(content, form or InputForm("json")).chunks()]


def read(content: bytes, form: InputForm) -> list[dict[str, Any] | str]:
    """Fields of each row, or class and message."""
    found: list[dict[str, Any] | str] = []
    for row in reviews(content, form):
        try:
            found.append(form.fields(row))
        except BadInput as bad:
            found.append(f"line {row.number} {bad.reason}: {bad}")
    return found


class TestChunks:
    """Reading lines."""

    def test_lines_come_in_order_without_ends_or_blanks_and_the_last_needs_no_end(self) -> None:
        """Windows line ends and empty lines do no harm, and a line has its number in the file."""
        assert contents(b"a\r\n\n  \nb\nc") == [[b"a", b"b", b"c"]]
        assert [row.number for row in reviews(b"a\r\n\n  \nb\nc", InputForm("json"))] == [1, 4, 5]
        assert contents(b"") == []

    def test_a_chunk_is_bounded_in_lines_and_in_bytes(self) -> None:
        """A long input is never held as a whole."""
        many = b"x\n" * (2 * CHUNK_ROWS + 5)
        assert [len(chunk) for chunk in contents(many)] == [CHUNK_ROWS, CHUNK_ROWS, 5]
        long = (b"y" * 400_000 + b"\n") * 7
        assert [len(chunk) for chunk in contents(long)] == [3, 3, 1]

    @pytest.mark.parametrize(
        ("kind", "sent", "found"),
        [
            ("json", [b"one\ntwo\nhal", b"f\n"], [["one", "two"], ["half"]]),
            ("csv", [b'text\none\n"t\nwo"\nhal', b"f\n"], [["one", "t\nwo"], ["half"]]),
        ],
    )
    def test_what_a_pipe_has_delivered_is_not_held_back(
        self, kind: Any, sent: list[bytes], found: list[list[str]]
    ) -> None:
        """A chunk does not wait for the writer's next line."""
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as pipe:
            pipe.write(sent[0])
            chunks = ReviewFile(stream, InputForm(kind)).chunks()
            assert [row.content.decode() or (row.cells or {})["text"] for row in next(chunks)] == found[0]
            pipe.write(sent[1])
            assert [row.content.decode() or (row.cells or {})["text"] for row in next(chunks)] == found[1]

    def test_what_stood_before_damage_is_not_lost(self) -> None:
        """A gzip file that breaks off gives its rows, and then says that it did."""
        damaged = gzip.compress(b"a\nb\n" * 5)[:-6]
        chunks = reviews(damaged, InputForm("text")).chunks()
        assert len(next(chunks)) == 10
        with pytest.raises(InputError, match="compressed data end too early"):
            next(chunks)

    @pytest.mark.parametrize(
        "content", ['[\n{"text": "好"}\n]', '[{"text": "好"},\n{"text": "差"}]', '{\n"text": "好"\n}']
    )
    def test_json_that_is_laid_out_over_lines_is_refused_once(self, content: str) -> None:
        """Not with a message for each of its lines. A line alone that is no JSON costs itself."""
        with pytest.raises(InputError, match="laid out over lines, from line 1; write an object a line: jq -c"):
            list(reviews(content.encode(), InputForm("json")))
        assert len(read('{"text": "好\n{"text": "差"}\n[\n'.encode(), InputForm("json"))) == 3


class TestTables:
    """CSV and TSV."""

    @pytest.mark.parametrize(
        ("encode", "form"),
        [
            (lambda text: text.encode(), InputForm("csv", "评论内容")),
            (lambda text: text.encode("utf-8-sig"), InputForm("csv", "评论内容")),
            (lambda text: text.replace("\n", "\r\n").encode(), InputForm("csv", "评论内容")),
            (lambda text: text.encode("gb18030"), InputForm("csv", "评论内容", encoding="gb18030")),
            (lambda text: text.encode("utf-16"), InputForm("csv", "评论内容")),
            (lambda text: gzip.compress(text.encode("utf-16")), InputForm("csv", "评论内容")),
            (lambda text: text.encode("utf-16-be"), InputForm("csv", "评论内容", encoding="utf-16-be")),
            (lambda text: text.replace(",", ";").encode(), InputForm("csv", "评论内容")),
            (lambda text: text.replace(",", "\t").encode(), InputForm("csv", "评论内容")),
            (lambda text: text.replace(",", "\t").encode(), InputForm("tsv", "评论内容")),
            (lambda text: ("\n\n" + text + "\n\n").encode(), InputForm("csv", "评论内容")),
            (lambda text: ("sep=;\r\n" + text.replace(",", ";")).encode("utf-8-sig"), InputForm("csv", "评论内容")),
        ],
    )
    def test_rows_are_read_whatever_the_program_that_saved_them(self, encode: Any, form: InputForm) -> None:
        """Byte order marks, encodings, line ends inside of cells, delimiters and compression."""
        found = [tuple((row.cells or {}).values()) for row in reviews(encode(TABLE), form)]
        assert [(number, text.replace("\r\n", "\n"), stars) for number, text, stars in found] == [
            ("1", "屏幕很亮", "5"),
            ("2", '客服说"等"，\n等了三天', "1"),
        ]

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("好,很好,5", "line 3 InvalidCsv: no row of the table: 3 cells under a header of 2; quote cells"),
            ('"好" 用,1', "line 3 InvalidCsv: no row of the table: characters follow the quotation mark"),
            (b"\xff\xfe,1", "line 3 InvalidUtf8: not UTF-8; name the file's encoding with --encoding"),
        ],
    )
    def test_a_bad_row_is_named_and_costs_only_itself(self, row: str | bytes, said: str) -> None:
        """Text that holds a delimiter would be cut off, so more cells than columns are no row."""
        raw = row.encode() if isinstance(row, str) else row
        found = read(b"text,n\n\xe5\xa5\xbd,1\n" + raw + b"\n\xe5\xb7\xae,2\n", InputForm("csv"))
        assert [found[0], found[2]] == [{"text": "好", "n": "1"}, {"text": "差", "n": "2"}]
        assert str(found[1]).startswith(said)

    def test_a_quotation_mark_that_is_never_closed_says_how_far_it_was_read(self) -> None:
        """Rows that it swallowed are not silently one review."""
        found = read('text,n\n"好,1\n差,2\n一般,3\n'.encode(), InputForm("csv"))
        assert len(found) == 1
        assert "line 2 InvalidCsv: no row of the table (read to line 4): a quoted cell is never closed" in str(found[0])
        literal = read('text,n\n"好,1\n差,2\n'.encode(), InputForm("csv", quotes=False))
        assert literal == [{"text": '"好', "n": "1"}, {"text": "差", "n": "2"}]

    def test_a_table_without_the_column_names_those_that_it_has(self) -> None:
        """Where there is no header, cells are reviews: long ones are not quoted."""
        with pytest.raises(InputError, match=r"no column text but 编号, 评论内容, stars; name the column .* --column"):
            list(reviews(TABLE.encode(), InputForm("csv")))
        with pytest.raises(InputError, match=r"no column text but \(15 characters\), 1;"):
            list(reviews("客服，三天，都不回，太差了啊。,1\n".encode(), InputForm("csv")))
        with pytest.raises(InputError, match=r"header is not UTF-8; .* gb18030"):
            list(reviews(TABLE.encode("gb18030"), InputForm("csv", "评论内容")))
        assert list(reviews(b"\n\n", InputForm("csv"))) == []


class TestFiles:
    """What a file is, by its name and its first bytes."""

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.jsonl", "json"),
            ("a.JSON.gz", "json"),
            ("a", "json"),
            ("a.txt", "text"),
            ("a.CSV", "csv"),
            ("b.csv.gz", "csv"),
            ("a.tsv", "tsv"),
            ("-", "json"),
            ("a.txt.gz", "text"),
        ],
    )
    def test_the_ending_says_the_format_unless_an_option_does(self, name: str, kind: str) -> None:
        """With or without .gz."""
        assert InputForm().of(name) == kind
        assert InputForm("json").of(name) == "json"

    def test_gzip_is_known_by_its_first_bytes(self, tmp_path: Path) -> None:
        """A file that a browser has unpacked still ends in .gz, and standard input has no name."""
        for content in (b'{"a": 1}\n', gzip.compress(b'{"a": 1}\n'), gzip.compress(b'{"a"') + gzip.compress(b": 1}")):
            path = tmp_path / "r.gz"
            path.write_bytes(content)
            with open_reviews(str(path), InputForm()) as found:
                assert [row.content for row in found] == [b'{"a": 1}']

    def test_json_lines_in_a_file_of_text_are_refused_by_name(self, tmp_path: Path) -> None:
        """They would be reviews that read like JSON; said with --format, they are."""
        path = tmp_path / "r.txt"
        path.write_text(json.dumps({"text": "好"}))
        with open_reviews(str(path), InputForm()) as found, pytest.raises(InputError, match="--format json"):
            list(found)
        with open_reviews(str(path), InputForm("text")) as found:
            assert len(list(found)) == 1

    @pytest.mark.parametrize(
        ("content", "form", "said"),
        [
            (b"PK\x03\x04...", InputForm("csv"), "zip archive or an Excel workbook"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
                InputForm(),
                "a Git LFS pointer of 63 bytes, not the file",
            ),
            (gzip.compress(b"BZh91AY&SY", mtime=0), InputForm("json"), "compressed with bzip2"),
            (
                b"text",
                InputForm("text", id_field="id"),
                "lines of text have no fields; leave --column and --id-field out",
            ),
            (b"text,label\rgood,1\rbad,0\r", InputForm("csv"), "header is no row .* carriage return .* line feeds"),
            (b"\x1f\x8b\x08\x00garbage", InputForm("json"), "compressed data end too early"),
            ("好".encode() + b"\xff\xff", InputForm("text", encoding="gb18030"), "line 1 or one .* not gb18030"),
        ],
    )
    def test_what_is_no_such_file_is_refused_by_what_it_is(self, content: bytes, form: InputForm, said: str) -> None:
        """With the option that mends it."""
        with pytest.raises(InputError, match=said):
            list(reviews(content, form))

    def test_a_file_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        """As the system puts it."""
        with pytest.raises(InputError, match="No such file"), open_reviews(str(tmp_path / "x"), InputForm()):
            pass

    def test_a_json_array_says_how_to_make_lines_of_it(self) -> None:
        """The commonest file that is called .json."""
        (found,) = read(b'[{"text": "a"}]', InputForm("json"))
        assert "jq -c '.[]'" in str(found)
