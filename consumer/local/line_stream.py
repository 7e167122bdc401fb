"""The lines of a stream as they arrive: gzipped or not, in any encoding, from a file or a pipe."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import select
import zlib
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from consumer.config.git_lfs import lfs_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LINE_BYTES: Final = 64_000_000
"""A line that is longer is taken for a file without line ends."""
LINGER_SECONDS: Final = 0.05
"""How long a pipe may be silent before what has arrived is processed."""

_BLOCK: Final = 65_536
_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an Excel workbook; save it as CSV",
    b"BZh91AY&SY": "compressed with bzip2; unpack it, or compress it with gzip",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or compress it with gzip",
    b"PAR1": "a Parquet file; write it as JSON lines or CSV",
}
"""What files begin with that hold no lines."""


class InputError(Exception):
    """A file that cannot be read, or not on from here. The message names the place and the way out."""


class LineStream:
    """The lines of a stream with their ends, transcoded to UTF-8, without a byte order mark. Raises InputError."""

    def __init__(self, stream: BinaryIO, encoding: str, *, looks_for_utf16: bool = True) -> None:
        """Reads the beginning of ``stream``, which says whether it is gzipped. UTF-8 is not looked into.

        ``looks_for_utf16``: its byte order mark takes the place of UTF-8; if not, lines may be any bytes.
        """
        # One read call of the system at a time: select does not see what a larger read leaves in Python's buffer.
        self._stream = (
            stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream))
        )
        self._ready: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._read = 0
        """Lines that are complete."""
        self._ended = False
        with reading():
            head = self._stream.peek(10)
            if head.startswith(_GZIP):
                self._stream = cast("io.BufferedReader", gzip.GzipFile(fileobj=self._stream))
                head = self._stream.peek(10)
        for beginning, what in _OTHERS.items():
            if head.startswith(beginning):
                raise InputError(f"it is {what}")
        if (pointer := lfs_pointer(head)) is not None:
            raise InputError(f"it {pointer}")
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        if is_utf8 and looks_for_utf16 and head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding, is_utf8 = "utf-16", False
        self._encoding = encoding
        self._decoder = None if is_utf8 else codecs.getincrementaldecoder(encoding)()

    def __iter__(self) -> LineStream:
        return self

    def __next__(self) -> bytes:
        while not self._ready:
            if self._ended:
                raise StopIteration
            self._fill()
        return self._ready.popleft()

    def are_awaited(self) -> bool:
        """Whether the next line has not arrived, nor begins to within a moment."""
        while not self._ready and not self._ended:
            if not _has_more(self._stream):
                return True
            self._fill()
        return False

    def _fill(self) -> None:
        with reading():
            block = self._stream.read1(_BLOCK)
        self._ended = not block
        if self._decoder is not None:
            try:
                block = self._decoder.decode(block, final=self._ended).encode()
            except UnicodeError:
                raise InputError(
                    f"line {self._read + 1} or one of the next is not {self._encoding}; is --encoding right?"
                ) from None
        *whole, last = block.split(b"\n")
        self._rest.append(whole[0] if whole else last)
        if whole:
            whole[0] = b"".join(self._rest)
            if not self._read:
                whole[0] = whole[0].removeprefix(codecs.BOM_UTF8)
            self._ready.extend(line + b"\n" for line in whole)
            self._read += len(whole)
            self._rest = [last]
        if self._ended and (end := b"".join(self._rest)):
            self._ready.append(end if self._read else end.removeprefix(codecs.BOM_UTF8))
        if sum(map(len, self._rest)) > LINE_BYTES:
            raise InputError(f"line {self._read + 1} is longer than {LINE_BYTES:,} bytes; is it one review a line?")


def _has_more(stream: BinaryIO) -> bool:
    try:
        return bool(select.select([stream], [], [], LINGER_SECONDS)[0])
    except (OSError, ValueError):
        return True  # no file descriptor, or none that can be waited for: it is read to its end


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn what reading may raise into InputError."""
    try:
        yield
    except EOFError:
        raise InputError("its compressed data end too early: it is cut off; copy it again") from None
    except (OSError, zlib.error) as error:
        raise InputError((error.strerror if isinstance(error, OSError) else None) or str(error)) from error
