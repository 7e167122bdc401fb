"""Values that are not plain UTF-8: compressed ones, and text in another encoding, as a route's keys say.

Both become UTF-8 before anything else reads them. A route without such keys comes here only for the message about what
it cannot read.
"""

from __future__ import annotations

import codecs
import zlib
from typing import TYPE_CHECKING, NamedTuple

from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.config.route import Compression, RouteConfig

MAX_MEMBERS = 256
"""Of a gzip value. As a rule there is one, and each of them copies what is behind it."""

_GZIP = 31
"""To zlib: a header and a trailer of gzip around the widest window."""

_UNPACKED_ELSEWHERE = "which is not unpacked: send gzip, or set compression.type in the producer instead"
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xff\xfe\x00\x00", "UTF-32 with a byte order mark"),
    (b"\xff\xfe", "UTF-16 with a byte order mark"),
    (b"\xfe\xff", "UTF-16 with a byte order mark"),
    (b"\x28\xb5\x2f\xfd", f"zstd, {_UNPACKED_ELSEWHERE}"),
    (b"\x04\x22\x4d\x18", f"lz4, {_UNPACKED_ELSEWHERE}"),
    (b"\xff\x06\x00\x00sNaPpY", f"snappy, {_UNPACKED_ELSEWHERE}"),
    (b"\x82SNAPPY", f"snappy, {_UNPACKED_ELSEWHERE}"),
    (b"\x78\x01", "zlib, which is not unpacked: send gzip"),
    (b"\x78\x5e", "zlib, which is not unpacked: send gzip"),
    (b"\x78\x9c", "zlib, which is not unpacked: send gzip"),
    (b"\x78\xda", "zlib, which is not unpacked: send gzip"),
    (b"\xac\xed\x00\x05", "a serialised Java object, which only Java reads: set a string or JSON serializer"),
)


class Packing(NamedTuple):
    """How the values of a route are packed."""

    encoding: str
    """Python's own name for it."""
    compression: Compression | None

    @classmethod
    def of(cls, route: RouteConfig) -> Packing | None:
        """That of a route, None where its values are plain UTF-8 or Avro."""
        encoding = "utf-8" if route.encoding is None else codecs.lookup(route.encoding).name
        return None if encoding == "utf-8" and route.compression is None else cls(encoding, route.compression)

    def unpack(self, value: bytes, most: int) -> bytes:
        """The value as plain UTF-8, from at most ``most`` bytes after decompression.

        A byte order mark stays; one of UTF-8 says that this is what it is, whatever the route's encoding. Raises
        BadInput (stage ``decode``): InvalidGzip, ValueTooLarge or InvalidEncoding; for UTF-8 the encoding is not looked
        at.
        """
        if self.compression is not None:
            value = gunzip(value, most)
        if self.encoding == "utf-8" or value.startswith(codecs.BOM_UTF8):
            return value
        encoding = self.encoding if self.encoding != "utf-16" else _utf_16(value)
        try:
            # Python reads UTF-7's halves of a surrogate pair, which nothing can write.
            return value.decode(encoding).encode(errors="replace")
        except UnicodeError as error:
            where = f"byte {error.start} of {len(value)}" if isinstance(error, UnicodeDecodeError) else "as a whole"
            what = f"not {self.encoding}: {where}{begins(value)}; set encoding of the route to what is sent"
            raise BadInput("decode", "InvalidEncoding", what) from None

    def size(self, value: bytes, most: int) -> int:
        """Bytes of the value when it is decompressed, 0 where it cannot be."""
        if self.compression is None:
            return len(value)
        try:
            return len(gunzip(value, most))
        except BadInput:
            return 0


def gunzip(value: bytes, most: int) -> bytes:
    """Decompress all members of a gzip value, of which no more than ``most`` bytes and one are made.

    Raises BadInput (stage ``decode``): InvalidGzip for what is none, is damaged, cut short, followed by something else
    or of more than ``MAX_MEMBERS`` members; ValueTooLarge.
    """
    parts: list[bytes] = []
    size, rest = 0, value
    while rest or not parts:
        at = len(value) - len(rest)
        if len(parts) == MAX_MEMBERS:
            raise _no_gzip(f"has more than {MAX_MEMBERS} members; send one")
        member = zlib.decompressobj(_GZIP)
        try:
            parts.append(member.decompress(rest, most + 1 - size))
        except zlib.error as error:
            if not rest.startswith(b"\x1f\x8b"):
                says = f"{begins(value)}; send gzip, or remove compression of the route" if at == 0 else ""
                where = (
                    "is no gzip" if at == 0 else f"has {len(rest)} bytes behind its end, at byte {at} of {len(value)}"
                )
                raise _no_gzip(where + says) from None
            # What zlib says has numbers and its own words only.
            raise _no_gzip(f"of {len(value)} bytes is damaged: {str(error).rpartition(': ')[2]}") from None
        size += len(parts[-1])
        if size > most:
            what = f"the value of {len(value)} bytes unpacks to more than limits.value_bytes {most}; raise that limit"
            raise BadInput("decode", "ValueTooLarge", what)
        if not member.eof:
            raise _no_gzip(f"of {len(value)} bytes is cut short: it unpacks to {size} bytes and has no end")
        rest = member.unused_data
    return b"".join(parts)


def _no_gzip(why: str) -> BadInput:
    return BadInput("decode", "InvalidGzip", f"the value {why}")


def _utf_16(value: bytes) -> str:
    """The encoding with its byte order, where there is no mark. That of JSON shows; Python takes its machine's."""
    start = value[:2]
    if len(start) < 2 or start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if start.strip(b"\0") in (b"{", b"["):
        return "utf-16-le" if start[0] else "utf-16-be"
    what = "UTF-16 without a byte order mark, in which order cannot be told"
    raise BadInput("decode", "InvalidEncoding", f"{what}; set encoding of the route to utf-16-le, utf-16-be or utf-8")


def not_utf8(value: bytes, at: int) -> BadInput:
    """The error of a value that is not UTF-8, at this byte: InvalidUtf8 (stage ``decode``)."""
    what = f"not UTF-8: byte {at} of {len(value)}{begins(value)}"
    fix = "set encoding of the route to what is sent, such as gb18030 or utf-16, or its compression to gzip"
    return BadInput("decode", "InvalidUtf8", f"{what}; {fix}")


def begins(value: bytes) -> str:
    """What a value's first bytes say that it is, in brackets; empty where they say nothing."""
    if begins_like_utf_16(value):
        return " (it begins like UTF-16 without a byte order mark)"
    return next((f" (it begins like {name})" for start, name in _BEGINNINGS if value.startswith(start)), "")


def begins_like_utf_16(value: bytes) -> bool:
    """Whether every second of a value's first four bytes is zero, and the others not: two Latin characters."""
    zeros = [byte == 0 for byte in value[:4]]
    return zeros in ([True, False] * 2, [False, True] * 2)
