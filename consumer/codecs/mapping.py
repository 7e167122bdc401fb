"""Events out of values that are no events: what ``fields`` and ``preset`` of a route make of a producer's own form.

``FieldMapping.read`` is all that the event processor and the command line call. A route without mapping never comes
here. What can be wrong with a value is BadInput, of one row where it has several.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from consumer.codecs.control_headers import MAX_ROWS, last_value
from consumer.codecs.decoding import event_from_fields, parse_json
from consumer.codecs.metadata import dropped, text_of, what_it_is
from consumer.codecs.presets import UNAVAILABLE, Base64, NoReview, Row, open_envelope
from consumer.codecs.times import milliseconds
from consumer.config.field_sources import ASKED_FOR, FIELDS, FieldSource, Path, parse_fields
from consumer.events import BadInput, LocalMilliseconds, Milliseconds, ReviewEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from consumer.config.field_sources import Field, Sources
    from consumer.config.route import RouteConfig
    from consumer.events import SourceRecord

_MISSING: Any = object()
_FITTING: Mapping[str, tuple[type, ...]] = {
    "event_id": (str, int),
    "product_id": (str, int),
    "source": (str,),
    "language": (str,),
    "created_at": (str, int, float),
    "attributes": (Mapping,),
}
"""Types that a field may have which nobody mapped: an envelope's own ``source`` is something else."""


class RowEvent(NamedTuple):
    """What one of the rows of a value says."""

    number: int
    """From 1."""
    event: ReviewEvent | BadInput


class FieldMapping:
    """The mapping of one route. Raises ValueError for one that the configuration's rules refuse."""

    def __init__(self, route: RouteConfig) -> None:
        sources, faults = parse_fields(route.fields or {})
        if faults:
            raise ValueError(f"routes.fields of {route.input}: {faults[0].what}; {faults[0].fix}")
        self._preset = route.preset
        self._sources: Sources = sources
        self._plain = [name for name in _FITTING if name not in sources]
        """Fields, besides the text, that are read under their own names."""

    def read(self, value: Any, record: SourceRecord, default_event_id: str) -> ReviewEvent | Rows | NoReview:
        """The event in a value as ``read_value`` gives it; the rows of one that may have several; or why it has none.

        Behind the default id stands the number of a row, if it has one. Raises BadInput: InvalidEvent (stage
        ``validate``) for a value that is not of the preset, TooManyRows, and all that can be wrong with the event of a
        single row; that of several is theirs.
        """
        rows = self._rows(value, record)
        if isinstance(rows, str):
            return rows
        if len(rows) > MAX_ROWS:
            what = f"the value has {len(rows)} rows; at most {MAX_ROWS} are allowed, send fewer in one record"
            raise BadInput("validate", "TooManyRows", what)
        if not rows[0].number:
            return self._event(rows[0], _Lookup(record), default_event_id)
        return Rows(rows, record, partial(self._of_many, default_event_id))

    def _rows(self, value: Any, record: SourceRecord) -> tuple[Row, ...] | NoReview:
        if self._preset is not None:
            return open_envelope(self._preset, value, record.headers)
        return "null_value" if value is None else (Row(value, ()),)

    def _of_many(self, default_event_id: str, row: Row, lookup: _Lookup) -> ReviewEvent | BadInput:
        try:
            event = self._event(row, lookup, f"{default_event_id}#{row.number}")
        except BadInput as bad:
            return bad
        # Only rows of Debezium are told to be without a text, and these come alone.
        return event if isinstance(event, ReviewEvent) else BadInput("validate", "MissingText", "the row has no text")

    def _event(self, row: Row, lookup: _Lookup, default_event_id: str) -> ReviewEvent | NoReview:
        warnings: list[str] = []
        fields = self._fields(row, lookup, warnings)
        if self._preset == "debezium" and fields.get("text") == UNAVAILABLE:
            return "text_unavailable"
        if fields.get("text") is None:
            raise BadInput("validate", "MissingText", self._where_text_ends(row, lookup))
        if isinstance(fields["text"], Base64):
            fields["text"] = fields["text"].review()
        event = event_from_fields(fields, default_event_id)
        return replace(event, warnings=(*event.warnings, *warnings)) if warnings else event

    def _fields(self, row: Row, lookup: _Lookup, warnings: list[str]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, source in self._sources.items():
            if isinstance(source, dict):
                named = {each: lookup.first(below, row) for each, below in source.items()}
                fields[name] = {each: item for each, (item, _) in named.items() if item is not None}
            elif source is not None:
                fields[name] = self._as_meant(name, source, row, lookup, warnings)
        own = row.value if isinstance(row.value, Mapping) else {}
        if "text" not in self._sources:
            fields["text"] = row.value if isinstance(row.value, str) else own.get("text")
        for plain in self._plain:
            for item in (own.get(plain), row.defaults.get(plain)):
                if isinstance(item, _FITTING[plain]) and not isinstance(item, bool):
                    fields[plain] = item
                    break
        return fields

    def _as_meant(self, name: Field, source: FieldSource, row: Row, lookup: _Lookup, warnings: list[str]) -> Any:
        """The value of a field, as the field wants it."""
        value, is_rows_own = lookup.first(source, row)
        if value is None:
            return None
        if source.unit is not None or source.utc_offset:
            try:
                found = milliseconds(value, source.unit, source.utc_offset)
                if self._preset == "debezium" and not isinstance(value, (str, Milliseconds)):
                    # Without a schema a column of no zone is a bare number; those of a zone are texts.
                    found = milliseconds(LocalMilliseconds(found), utc_offset_minutes=source.utc_offset)
                return Milliseconds(found)
            except ValueError as error:
                warnings.append(dropped("created_at", f"is {error}"))
                return None
        if name == "event_id" and row.number and not is_rows_own:
            # All rows have this id, and equal ids would make their results copies of each other.
            text = text_of("event_id", value, warnings)
            return text and f"{text}#{row.number}"
        if name in ("attributes", "tasks") and isinstance(value, str):
            return lookup.parsed(value)
        return value

    def _where_text_ends(self, row: Row, lookup: _Lookup) -> str:
        """Why there is no text, with no name or value of the record but those of the configuration."""
        source = self._sources.get("text")
        if not isinstance(source, FieldSource):
            found = "an object without it" if isinstance(row.value, Mapping) else what_it_is(row.value)
            return (
                f"the event has no text: its row is {found}; name its path in fields of the route, as in text: content"
            )
        ends = "; ".join(f"path {path.written} {lookup.end(path, row)}" for path in source.paths)
        return f"the event has no text: {ends}; compare fields.text of the route with what is sent"


class Rows:
    """The rows of a value that may have several. Few of them are made into events at once: each may repeat much of
    what is around it.
    """

    def __init__(
        self, rows: Sequence[Row], record: SourceRecord, event_of: Callable[[Row, _Lookup], ReviewEvent | BadInput]
    ) -> None:
        self._rows = rows
        self._record = record
        self._event_of = event_of

    @property
    def numbers(self) -> list[int]:
        """From 1, of the whole value."""
        return [row.number for row in self._rows]

    def only(self, numbers: Collection[int]) -> Rows:
        """Those of these numbers."""
        return Rows([row for row in self._rows if row.number in numbers], self._record, self._event_of)

    def events(self, first: int, most: int) -> list[RowEvent]:
        """At most so many from the row at index ``first`` on."""
        lookup = _Lookup(self._record)
        return [RowEvent(row.number, self._event_of(row, lookup)) for row in self._rows[first : first + most]]


class _Lookup:
    """Finds what paths lead to in one record. JSON within a text is parsed once, however many fields ask for it."""

    def __init__(self, record: SourceRecord) -> None:
        self._record = record
        self._parsed: dict[str, Any] = {}

    def first(self, source: FieldSource, row: Row) -> tuple[Any, bool]:
        """The first value that is there, or the constant; and whether it is of this row alone.

        A text that is empty, as files and forms write what is not there, is taken where nothing else is.
        """
        empty: tuple[Any, bool] = (source.constant, False)
        for path in source.paths:
            value, is_rows_own = self._at(path, row)
            if value is None or value is _MISSING:
                continue
            if not isinstance(value, str) or not (value == "" or value.isspace()):
                return value, is_rows_own
            if empty[0] is None:
                empty = value, is_rows_own
        return empty

    def _at(self, path: Path, row: Row) -> tuple[Any, bool]:
        record = self._record
        if path.place == "value":
            for number, place in enumerate((row.value, *row.around)):
                value, _ = self.walk(place, path.steps)
                if value is not _MISSING:  # a null in the row is not what has the same name around it
                    return value, number == 0 or not row.shares_around
            return _MISSING, False
        if path.place == "$timestamp":
            return None if record.timestamp_ms is None else Milliseconds(record.timestamp_ms), False
        if path.place == "$headers":
            return _as_text(last_value(record.headers, path.steps[0])), False
        return self._in_key(path.steps), False

    def _in_key(self, steps: tuple[str, ...]) -> Any:
        key = self._record.key
        if key is not None and key[:1] == b"\0" and key[5:6] == b"{":  # JSON in Confluent's frame, as values may be
            key = key[5:]
        text = _as_text(key)
        if not steps or text is None:
            return text
        value, _ = self.walk(text, steps)
        if value is _MISSING:  # as Connect's converter writes keys
            value, _ = self.walk(text, ("payload", *steps))
        return value

    def walk(self, value: Any, steps: tuple[str, ...]) -> tuple[Any, int]:
        """What the steps lead to, ``_MISSING`` where they end, and how many could be taken.

        A step may lead into JSON within a text, as columns of databases hold it.
        """
        for number, step in enumerate(steps):
            if isinstance(value, str):
                value = self.parsed(value)
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, (list, tuple)) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
                value = value[int(step[:9])]
            else:
                return _MISSING, number
        return value, len(steps)

    def parsed(self, text: str) -> Any:
        """An object or array that a text holds as JSON; the text itself where it holds none."""
        if text.lstrip()[:1] not in ("{", "["):
            return text
        if text not in self._parsed:
            self._parsed[text] = text
            with contextlib.suppress(BadInput):
                self._parsed[text] = parse_json(text)
        return self._parsed[text]

    def end(self, path: Path, row: Row) -> str:
        """Where a path ends that leads to nothing."""
        if path.place == "$headers":
            return "is a header that the record does not have, or no UTF-8"
        if path.place != "value":
            return "leads to nothing"
        # The way that led farthest.
        place = max((row.value, *row.around), key=lambda place: self.walk(place, path.steps)[1])
        value, taken = self.walk(place, path.steps)
        if taken == len(path.steps):
            return f"leads to {what_it_is(value)}"
        before = what_it_is(self.walk(place, path.steps[:taken])[0])
        if not taken:
            return f"is not there: the value is {before} without it"
        return f"leads as far as {'.'.join(path.steps[:taken])}, which is {before} without {path.steps[taken]}"


def _as_text(value: bytes | None) -> str | None:
    """None for what is not text: other bytes, or a frame of a schema registry, which begins with a zero."""
    if value is None or value[:1] == b"\0":
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def described(route: RouteConfig) -> dict[Field, str]:
    """Where each field of an event comes from, in words, for ``rexstream check``."""
    sources, _ = parse_fields(route.fields or {})
    said: dict[Field, str] = {}
    for name in FIELDS:
        source = sources.get(name, _MISSING)
        if isinstance(source, dict):
            said[name] = ", ".join(f"{each} from {_said(below)}" for each, below in source.items()) or "none"
        elif isinstance(source, FieldSource):
            said[name] = _said(source)
        elif source is None or name in ASKED_FOR:
            said[name] = "not read"
        else:
            said[name] = _by_default(route, name)
    return said


def _said(source: FieldSource) -> str:
    parts = [path.written for path in source.paths]
    if source.constant is not None:
        parts.append(f"the constant {source.constant}")
    offset = source.utc_offset
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    details = [f"unit {source.unit}"] * (source.unit is not None) + [f"UTC{zone} without a zone"] * bool(offset)
    return " or ".join(parts) + (f" ({', '.join(details)})" if details else "")


def _by_default(route: RouteConfig, name: Field) -> str:
    if route.format == "text":
        own = "the value" if name == "text" else ""
    else:
        own = f"{name} of {'the row' if route.preset else 'the value'}"
    if route.preset == "cloudevents" and name in ("event_id", "source", "created_at"):
        own = f"{own} or the CloudEvent's {'id' if name == 'event_id' else 'time' if name == 'created_at' else name}"
    if name == "event_id":
        own = f"{own} or topic-partition-offset".removeprefix(" or ")
    return own.removeprefix(" or ") or "not read"
