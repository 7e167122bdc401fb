"""What a dead letter says of an exception: its class, its cause's class, and, where that is wanted, its stack trace."""

from __future__ import annotations

import traceback

STACK_TRACE_BYTES = 4096
"""Longest stack trace in a header."""


def class_name(error: BaseException | None) -> str | None:
    """The qualified name of an exception's class; None for no exception."""
    return None if error is None else f"{type(error).__module__}.{type(error).__qualname__}"


def stack_trace(error: BaseException) -> str:
    """Frames and message of ``error``; of a long one the last 4 KiB, where it was raised.

    Nothing of exceptions behind it: a library's message may quote what it could not read, which is review text.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = f"{frames}{class_name(error)}: {error}"
    return text.encode(errors="replace")[-STACK_TRACE_BYTES:].decode(errors="ignore")
