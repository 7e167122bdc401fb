"""Files of reviews as ``extract``, ``send`` and ``evaluate`` read them: JSON lines, plain text, CSV and TSV.

Each may be gzipped, in another encoding than UTF-8, and standard input. ``open_reviews`` gives a ``ReviewFile``, which
yields a ``Row`` for each line or row of the table as it arrives; ``InputForm`` says where in it text and id are.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sys
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, get_args

from consumer.codecs.decoding import parse_json
from consumer.events import BadInput
from consumer.local.line_stream import InputError, LineStream, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FileFormat = Literal["json", "text", "csv", "tsv"]
FILE_FORMATS: Final[tuple[FileFormat, ...]] = get_args(FileFormat)
ENDINGS: Final[Mapping[str, FileFormat]] = {".txt": "text", ".csv": "csv", ".tsv": "tsv"}
"""Formats by the end of a file's name, with or without ``.gz`` behind it; all else holds JSON lines."""
EVENT_COLUMNS: Final = ("event_id", "product_id", "source", "language", "created_at")
"""Columns of a table that are the event's fields of that name. Others but text and id are attributes."""

STDIN: Final = "-"
CHUNK_ROWS: Final = 256
"""Rows whose windows are batched together: enough to fill batches of windows of similar length."""
CHUNK_BYTES: Final = 1_000_000
"""A chunk ends with the row that reaches this, so long rows do not pile up in memory."""

_DELIMITERS: Final[Mapping[FileFormat, str]] = {"csv": ",;\t|", "tsv": "\t"}
_SHOWN_NAME: Final = re.compile(r"[\w .()/（）-]{1,24}")
_TOLD_DELIMITER: Final = re.compile('"?sep=."?', re.IGNORECASE | re.DOTALL)
"""A first line that Excel reads as the delimiter, and writes nobody's name in."""
_OVER_LINES: Final = re.compile(rb"\s*([\[{]\s*|\[.*,\s*)")
"""Begins a JSON value of several lines: a bracket alone, or an array's first value."""
_ONE_A_LINE: Final = "write an object a line: jq -c '.[]' for an array, jq -c . for objects"
_UNDECODED: Final = re.compile("[\udc80-\udcff]")


class Row(NamedTuple):
    """A line that holds something, or a row of a table.

    ``problem`` is why it could not be read; ``cells`` are a table's by column, and None for lines.
    """

    number: int
    """Of its first line in the file, from 1."""
    content: bytes
    """A line without its end and a byte order mark; nothing for a table's row."""
    cells: Mapping[str, str] | None = None
    problem: BadInput | None = None

    @property
    def size(self) -> int:
        """Bytes or characters that it holds."""
        return len(self.content) + sum(map(len, (self.cells or {}).values()))


@dataclass(frozen=True, slots=True)
class InputForm:
    """What a file holds, and under which names."""

    format: FileFormat | None = None
    """None: what the end of the file's name says."""
    text_field: str = "text"
    """JSON field or column with the review."""
    id_field: str | None = None
    """JSON field or column that becomes ``event_id``."""
    encoding: str = "utf-8"
    quotes: bool = True
    """Whether a table's cells may be quoted; if not, a quotation mark is a character like any other."""

    def of(self, path: str) -> FileFormat:
        """The format of the file at ``path``."""
        name = path.lower().removesuffix(".gz")
        if self.format is not None:
            return self.format
        return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), "json")

    def fields(self, row: Row) -> dict[str, Any]:
        """What a row holds, by name: a line of text has it under ``text``. Raises BadInput."""
        if row.problem is not None:
            raise row.problem
        if row.cells is not None:
            return dict(row.cells)
        if self.format == "text":
            return {"text": _utf8(row.content)}
        fields = parse_json(_utf8(row.content))
        if not isinstance(fields, dict):
            what = 'not a JSON object; give one object a line, such as {"text": ...}'
            if isinstance(fields, list):
                what += " (jq -c '.[]' makes lines of a file that is one array)"
            raise BadInput("validate", "InvalidEvent", what)
        return fields

    def event(self, row: Row, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of the Kafka event in a row with these ``fields``: the same object where nothing is renamed.

        Of a table, columns that are no field of an event become attributes. Empty cells are left out.
        """
        event = fields
        if row.cells is not None:
            named = (*EVENT_COLUMNS, self.text_field, self.id_field)
            rest = {name: cell for name, cell in fields.items() if cell and name not in named}
            event = {name: fields[name] for name in EVENT_COLUMNS if fields.get(name)}
            event |= {"text": fields[self.text_field]} if self.text_field in fields else {}
            event |= {"attributes": rest} if rest else {}
        elif self.text_field != "text" and self.text_field in fields:
            event = {name: value for name, value in fields.items() if name != self.text_field}
            event["text"] = fields[self.text_field]
        if self.id_field is not None and fields.get(self.id_field) not in (None, ""):
            event = {**event, "event_id": as_text(fields[self.id_field])}
        return event


def as_text(value: object) -> str:
    """A string as it is, any other JSON value as its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def open_reviews(path: str, form: InputForm) -> Iterator[ReviewFile]:
    """Open a file, or standard input (``-``), which is left open. Raises InputError when it cannot be read."""
    with contextlib.ExitStack() as stack:
        with reading():
            stream = sys.stdin.buffer if path == STDIN else stack.enter_context(Path(path).open("rb"))
        reviews = ReviewFile(stream, replace(form, format=form.of(path)), is_guess=form.format is None)
        yield reviews


class ReviewFile:
    """The rows of a stream, in order, each as soon as it has arrived. Iterating raises InputError."""

    def __init__(self, stream: BinaryIO, form: InputForm, *, is_guess: bool = False) -> None:
        """Reads the beginning of the stream, which says whether it is gzipped, and UTF-16. Raises InputError.

        ``is_guess``: the format was not said, but follows from the file's name.
        """
        if form.format == "text" and (form.text_field != "text" or form.id_field is not None):
            raise InputError("lines of text have no fields; leave --column and --id-field out")
        self.form = form
        """With the format, whoever chose it."""
        self._is_guess = is_guess
        self._lines = LineStream(stream, form.encoding, looks_for_utf16=form.format != "text")

    def __iter__(self) -> Iterator[Row]:
        return self._table() if self.form.format in _DELIMITERS else self._plain()

    def chunks(self) -> Iterator[list[Row]]:
        """All rows, in chunks that are processed together.

        From a file chunks are full. From a pipe or a terminal a chunk is what has arrived when nothing more comes for
        a moment, so that ``tail -f`` sees its results.
        """
        chunk: list[Row] = []
        size = 0
        try:
            for row in self:
                chunk.append(row)
                size += row.size
                if len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES or self._lines.are_awaited():
                    yield chunk
                    chunk, size = [], 0
        except InputError:
            if chunk:
                yield chunk
            raise
        if chunk:
            yield chunk

    def _plain(self) -> Iterator[Row]:
        """Lines; those that hold nothing but white space are passed over."""
        first = True
        for number, line in enumerate(self._lines, 1):
            content = line.rstrip(b"\r\n")
            if content.strip():
                if first and self._is_guess and self.form.format == "text" and _is_object(content):
                    raise InputError(f"line {number} is JSON in a file of text; say --format json, or --format text")
                if first and self.form.format == "json" and _OVER_LINES.fullmatch(content):
                    raise InputError(f"its JSON is laid out over lines, from line {number}; {_ONE_A_LINE}")
                first = False
                yield Row(number, content)

    def _table(self) -> Iterator[Row]:
        """Rows below the header. Quoted cells may hold line ends."""
        lines = (line.decode("utf-8", "surrogateescape") for line in self._lines)
        blank, first = 0, ""
        for first in lines:
            if first.strip() and not _TOLD_DELIMITER.fullmatch(first.strip()):
                break
            blank += 1
        else:
            return
        delimiter = self._delimiter(first)
        rows = csv.reader(
            chain([first], lines),
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if self.form.quotes else csv.QUOTE_NONE,
            strict=True,
        )
        columns: list[str] = []
        while True:
            number = blank + rows.line_num + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                yield _bad(number, "InvalidCsv", _fault(error, number, blank + rows.line_num))
                continue
            if cells is None:
                return
            if not columns:
                columns = [name.strip() for name in cells]
            elif any(cells):
                yield _row(number, columns, cells)

    def _delimiter(self, header: str) -> str:
        """What parts the header so that the column with the text is among its names."""
        if _UNDECODED.search(header):
            raise InputError(
                "the header is not UTF-8; name the file's encoding with --encoding, such as gb18030 or utf-16"
            )
        found = []
        for delimiter in _DELIMITERS[self.form.format or "csv"]:
            try:
                names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            except csv.Error as error:
                raise InputError(f"the header is {_fault(error, 1, 1)}") from None
            if names.count(self.form.text_field) > 1:
                raise InputError(f"column {self.form.text_field} stands twice in the header; rename one")
            if self.form.text_field in names:
                return delimiter
            found.append(names)
        names = max(found, key=len)
        # Where there is no header these are cells of a row, reviews perhaps.
        shown = [name if _SHOWN_NAME.fullmatch(name) else f"({len(name)} characters)" for name in names[:20]]
        raise InputError(
            f"the header has no column {self.form.text_field} but {', '.join(shown)}; name the column with the text "
            "with --column"
        )


def _utf8(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte {error.start} of {len(content)}; name the file's encoding with --encoding"
        raise BadInput("decode", "InvalidUtf8", f"{what}, such as gb18030 or utf-16") from None


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(parse_json(_utf8(content)), dict)
    except BadInput:
        return False


def _bad(number: int, reason: str, what: str) -> Row:
    return Row(number, b"", {}, BadInput("decode", reason, what))


def _row(number: int, columns: list[str], cells: list[str]) -> Row:
    if any(cells[len(columns) :]):
        what = f"no row of the table: {len(cells)} cells under a header of {len(columns)}; quote cells with delimiters"
        return _bad(number, "InvalidCsv", what)
    if _UNDECODED.search("".join(cells)):
        return _bad(
            number, "InvalidUtf8", "not UTF-8; name the file's encoding with --encoding, such as gb18030 or utf-16"
        )
    return Row(number, b"", {name: cell for name, cell in zip(columns, cells, strict=False) if name})


def _fault(error: csv.Error, first: int, last: int) -> str:
    """What is wrong with a row, and which lines were read for it."""
    fault = next((what for said, what in _FAULTS.items() if said in str(error)), str(error))
    return f"no row of the table{f' (read to line {last})' if last > first else ''}: {fault}"


_FAULTS: Final[Mapping[str, str]] = {
    "unexpected end": "a quoted cell is never closed; close it, or say --no-quotes where quotation marks mean nothing",
    "expected after": (
        "characters follow the quotation mark that closes a cell; double those inside of it, or say --no-quotes where "
        "they mean nothing"
    ),
    "larger than field limit": (
        f"a cell has more than {csv.field_size_limit():,} characters; is a quotation mark not closed? Say --no-quotes "
        "where they mean nothing"
    ),
    "new-line character": (
        "a carriage return stands in a cell that is not quoted; quote the cell, or end lines with line feeds"
    ),
}
