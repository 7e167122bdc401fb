"""Reading JSON lines as they come."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_LINES: Final = 256
"""Lines that are worked on together: enough to fill batches of windows of like length."""
CHUNK_BYTES: Final = 1_000_000
"""A chunk ends with the line that reaches this, so long lines do not pile up in memory."""
LINGER_SECONDS: Final = 0.05
"""How long a pipe may be silent before what has come through it is worked on."""


def chunks(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Lines without their ends, in chunks; those that hold nothing but white space are left out.

    From a file chunks are full. From a pipe or a terminal a chunk is what has arrived when nothing more comes for a
    moment, so that ``tail -f`` sees its results.
    """
    # One read of the system at a time: what a larger read would buffer, select does not see.
    read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    lines: list[bytes] = []
    size = 0
    rest = b""
    while True:
        if lines and not _has_more(stream):
            yield lines
            lines, size = [], 0
        block = read1(65_536)
        *whole, rest = (rest + block).split(b"\n") if block else (rest, b"")
        for line in whole:
            if not line.strip():
                continue
            lines.append(line)
            size += len(line)
            if len(lines) == CHUNK_LINES or size >= CHUNK_BYTES:
                yield lines
                lines, size = [], 0
        if not block:
            if lines:
                yield lines
            return


def _has_more(stream: BinaryIO) -> bool:
    try:
        return bool(select.select([stream], [], [], LINGER_SECONDS)[0])
    except (OSError, ValueError):
        return True  # no file descriptor, or none that can be waited for: it is read to its end
