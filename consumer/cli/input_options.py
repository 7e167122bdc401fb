"""What ``extract``, ``send``, ``evaluate`` and ``compare`` share: options that say what a file of reviews holds."""

from __future__ import annotations

import codecs
import functools
from typing import TYPE_CHECKING, Any

import click

from consumer.local.review_files import FILE_FORMATS, InputForm

if TYPE_CHECKING:
    from consumer.cli.options import Command
    from consumer.local.review_files import FileFormat


def input_options(command: Command) -> Command:
    """Add ``--format``, ``--text-field`` (``--column``), ``--encoding`` and ``--no-quotes``.

    The command gets them as one argument ``form``, an InputForm.
    """

    @click.option(
        "--format",
        "file_format",
        type=click.Choice(FILE_FORMATS),
        help="json: an object a line. text: a review a line. csv, tsv: a table below a header. Default: by the "
        "ending .txt, .csv or .tsv, else json.",
    )
    @click.option(
        "--text-field",
        "--column",
        "text_field",
        default="text",
        show_default=True,
        metavar="NAME",
        help="JSON field or column with the text.",
    )
    @click.option(
        "--encoding",
        default="utf-8",
        show_default=True,
        callback=_encoding,
        help="Of the file, such as gb18030; json, csv and tsv: UTF-16 with a byte order mark is recognised.",
    )
    @click.option("--no-quotes", is_flag=True, help="csv, tsv: quotation marks are characters like any other.")
    @functools.wraps(command)
    def with_form(
        *, file_format: FileFormat | None, text_field: str, encoding: str, no_quotes: bool, **others: Any
    ) -> Any:
        form = InputForm(file_format, text_field, others.get("id_field"), encoding, quotes=not no_quotes)
        others.pop("id_field", None)
        return command(form=form, **others)

    return with_form


def id_field_option(command: Command) -> Command:
    """Add ``--id-field``; stands above ``input_options``, whose InputForm has it."""
    return click.option(
        "--id-field", metavar="NAME", help="JSON field or column to copy to event_id, such as review_id."
    )(command)


def _encoding(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        "".encode(value)  # LookupError for a name that is none, and for codecs that are not of text
        codecs.getincrementaldecoder(value)
    except (LookupError, UnicodeError) as error:
        raise click.BadParameter(f"{error}; such as utf-8, gb18030 or utf-16") from None
    return value
