"""What ``tail`` shows of a record: a line, or on a terminal columns that fit its width.

A dead letter's value and the value of a record that is no result are never shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from consumer.cli.record_lines import printable, result_of
from consumer.delivery.dead_letters import KIP_1191, PREFIX
from consumer.delivery.letters import header_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from consumer.events import SourceRecord

_EVENT, _TASK = 20, 18
"""Columns of the screen, of which a Chinese character takes two."""
_WIDE_EVENT = 36
"""A UUID's length, from ``_WIDE`` columns of the screen on."""
_NARROW, _WIDE = 90, 140
"""Below the first width what was found goes below the event."""
_APART = 2
_INDENT = 4


class _Shown(NamedTuple):
    heads: tuple[Text, Text]
    """What it is and where it belongs: event and task of a result, label and place of a dead letter."""
    pieces: list[Text]
    """Of a result each path of facts, of a dead letter the reason."""

    @property
    def body(self) -> Text:
        return Text("; ").join(self.pieces)


def line(record: SourceRecord) -> str:
    """All on one line, however long, without colours: for other programs."""
    shown = _shown(record)
    event, task = (_padded(head, width) for head, width in zip(shown.heads, (_EVENT, _TASK), strict=True))
    return Text.assemble(event, task, shown.body).plain


def laid_out(record: SourceRecord, console: Console) -> Text:
    """As it fits ``console``: facts beside event and task, or below them where there is no room."""
    shown = _shown(record)
    columns = (_WIDE_EVENT if console.width >= _WIDE else _EVENT, _TASK)
    beside = console.width >= _NARROW and all(
        head.cell_len <= width for head, width in zip(shown.heads, columns, strict=True)
    )
    indent = sum(columns) + 2 * _APART if beside else _INDENT
    room = max(1, console.width - indent)
    pieces = [shown.body] if shown.body.cell_len <= room else shown.pieces
    lines = [each for piece in pieces for each in piece.wrap(console, room)]
    if beside:
        head = Text.assemble(*(_padded(each, width) for each, width in zip(shown.heads, columns, strict=True)))
        first, rest = Text.assemble(head, lines[0]) if lines else head, lines[1:]
    else:
        first, rest = Text("  ").join(each for each in shown.heads if each), lines
    return Text("\n").join([first, *(Text.assemble(" " * indent, each) for each in rest)])


def _shown(record: SourceRecord) -> _Shown:
    headers = header_texts(record)
    if PREFIX + "class" in headers:
        return _dead_letter(headers)
    result = result_of(record.value)
    if result is None:
        size = "null value" if record.value is None else f"{len(record.value)} bytes"
        place = Text(printable(f"{record.topic}-{record.partition}@{record.offset}"))
        return _Shown((place, Text()), [Text(f"not a JSON result, {size} (see --json)")])
    event, task = (printable(str(result.get(name, "?"))) for name in ("event_id", "task"))
    pieces = [Text(" > ").join(map(_fact, path)) for path in result["extractions"]]
    pieces = pieces or [Text("nothing found", style="dim")]
    if warnings := result.get("warnings"):
        told = ", ".join(map(str, warnings)) if isinstance(warnings, list) else str(warnings)
        pieces.append(Text(f"({printable(told)})", style="yellow"))
    return _Shown((Text(event), Text(task, style="cyan")), pieces)


def _dead_letter(headers: Mapping[str, str]) -> _Shown:
    place = "{}-{}@{}".format(*(headers.get(KIP_1191 + part, "?") for part in ("topic", "partition", "offset")))
    stage, reason = headers.get(PREFIX + "stage", "?"), headers[PREFIX + "class"]
    task = f" task {headers[PREFIX + 'task']}" if headers.get(PREFIX + "task") else ""
    attempts = f" (attempts: {headers[PREFIX + 'attempts']})" if PREFIX + "attempts" in headers else ""
    message = headers.get(KIP_1191 + "message") or headers.get(PREFIX + "exception", "")
    why = Text(printable(f"{stage}/{reason}{task}: {message}{attempts}"))
    return _Shown((Text("dead letter", style="red"), Text(printable(place))), [why])


def _fact(fact: Mapping[str, Any]) -> Text:
    kind, span = printable(str(fact.get("type", "?"))), fact.get("span")
    return Text(kind) if span is None else Text.assemble((f"{kind}=", "dim"), (printable(str(span)), "bold"))


def _padded(head: Text, width: int) -> Text:
    return Text.assemble(head, " " * (max(0, width - head.cell_len) + _APART))
