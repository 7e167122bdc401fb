"""Values in another encoding than UTF-8, and compressed ones."""

from __future__ import annotations

import codecs
import gzip
import json
import tracemalloc
import zlib
from encodings.aliases import aliases
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.decoding import decode
from consumer.codecs.outputs import Routes
from consumer.codecs.packing import MAX_MEMBERS, Packing, gunzip
from consumer.config.loading import load_config
from consumer.config.route import RouteConfig
from consumer.config.value_rules import value_checks
from consumer.events import BadInput, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.config.route import Compression, ValueFormat
    from consumer.events import ReviewEvent

LIMIT = 100_000


def zipped(content: bytes) -> bytes:
    """Without the time in it: values of parameters are names of tests, the same in each process that collects them."""
    return gzip.compress(content, mtime=0)


GZIP = Packing("utf-8", "gzip")
EVENT = '{"text": "壶嘴设计得好", "event_id": "e-1"}'


def packing(encoding: str | None = None, compression: Compression | None = None) -> Packing | None:
    return Packing.of(RouteConfig(input="in", encoding=encoding, compression=compression))


def read(value: bytes, value_format: ValueFormat = "json", packed: Packing | None = None) -> ReviewEvent:
    return decode(SourceRecord("in", 0, 1, 1, None, value, (), None, 0.0), value_format, LIMIT, None, packed)


def refused(value: bytes, value_format: ValueFormat = "json", packed: Packing | None = None) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read(value, value_format, packed)
    assert caught.value.stage == "decode"
    return caught.value


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """The reason why it was refused, or what it gave."""
    try:
        return "", call()
    except BadInput as error:
        return error.reason, None


CONFIG = load_config(None, {}, [])


def takes(name: str) -> bool:
    """Whether a configuration may name this encoding; if not, it is told what to write."""
    config = CONFIG.model_copy(update={"routes": (RouteConfig(input="in", encoding=name),)})
    failed = [check for check in value_checks(config) if check[0]]
    assert all(path == ("routes", 0, "encoding") and fix for _, path, _, fix in failed)
    return not failed


@pytest.mark.parametrize("encoding", ["gb18030", "GBK", "big5", "utf-16", "UTF-16LE", "utf_32", "utf-8-sig", "cp037"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_encodings_in_every_format(encoding: str, mark: str, compression: Compression | None) -> None:
    """With a byte order mark where the encoding has one, packed or not, the event is as its producer wrote it."""
    text = {"cp037": "teapot", "big5": "壺嘴設計得好"}.get(encoding, "壶嘴设计得好")
    if mark and encoding in ("GBK", "big5", "cp037"):
        return
    for value_format, written in (("text", text), ("json", json.dumps({"text": text}, ensure_ascii=False))):
        value = (mark + written).encode(encoding)
        packed = zipped(value) if compression else value
        assert read(packed, value_format, packing(encoding, compression)).text == text  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_the_byte_order_of_json_shows_without_a_mark(encoding: str) -> None:
    """Whatever machine this is."""
    assert read(EVENT.encode(encoding), "json", packing("utf-16")).text == "壶嘴设计得好"


@pytest.mark.parametrize("encoding", ["gb18030", "windows-1252", "utf-16", "shift_jis"])
def test_a_byte_order_mark_of_utf_8_wins(encoding: str) -> None:
    """What begins so is UTF-8, and not three odd characters of another encoding."""
    for value_format, value in (("json", EVENT), ("text", "壶嘴设计得好")):
        sent = value.encode("utf-8-sig")
        assert read(sent, value_format, packing(encoding)).text == "壶嘴设计得好"  # type: ignore[arg-type]


@pytest.mark.parametrize("value_format", ["json", "text"])
def test_a_byte_order_mark_of_utf_8_is_skipped(value_format: ValueFormat) -> None:
    """In every format, packed or not; one more is text."""
    written = EVENT if value_format == "json" else "好"
    plain = read(written.encode(), value_format)
    marked = ("\ufeff" + written).encode()
    assert read(marked, value_format) == plain
    assert read(zipped(marked), value_format, GZIP) == plain


def test_plain_utf_8_is_not_packed() -> None:
    """Whatever it is called: such a route runs what it ran without the key."""
    for name in (None, "utf-8", "UTF8", "utf_8", "cp65001", "U8"):
        assert packing(name) is None
    packings = Routes([RouteConfig(input="a"), RouteConfig(input=r"^b\..*$", encoding="gbk")], {}).packings
    assert (packings["a"], packings["b.x"]) == (None, Packing("gbk", None))


def test_every_encoding_of_python_is_read_or_refused_at_the_start() -> None:
    """What is taken reads what it writes; what is no encoding of text is refused."""
    names = {*aliases.values(), "utf_8_sig", "cp720", "koi8_t", "charmap", "idna", "punycode", "undefined"}
    names |= {"unicode_escape", "raw_unicode_escape", "rot13", "base64", "hex", "zip", "bz2", "uu", "quopri", "no-such"}
    taken = {name for name in names if takes(name)}
    assert names - taken >= {"idna", "punycode", "undefined", "unicode_escape", "rot13", "base64", "zip", "charmap"}
    assert len(taken) > 90
    for name in taken:
        value = '{"text": "ok"}'.encode(name)
        assert read(value, "json", packing(name)).text == "ok", name


@given(st.sampled_from(sorted({*aliases.values()} - {"mbcs"})), st.binary(max_size=60))
def test_any_bytes_in_any_encoding(name: str, value: bytes) -> None:
    """Are a text that can be written, or bad input."""
    if takes(name):
        reason, event = outcome(lambda: read(value, "text", packing(name)))
        assert reason in ("InvalidEncoding", "InvalidUtf8", "EmptyText") or event.text.encode()


@pytest.mark.parametrize(
    ("encoding", "value", "words"),
    [
        ("gb18030", "好".encode("gb18030")[:1], "not gb18030: byte 0 of 1"),
        ("utf-16", b"\xff\xfea\x00b", "not utf-16: byte 4 of 5"),
        ("utf-16", "鞋".encode("utf-16-be"), "without a byte order mark, in which order cannot be told; set encoding"),
        ("ascii", b"\xac\xed\x00\x05t\x00\x04neat", "a serialised Java object, which only Java reads"),
        ("ascii", b"\xff\xfea\x00", "not ascii: byte 0 of 4 (it begins like UTF-16 with a byte order mark)"),
        ("shift_jis", b"\x1f\x8b\x08\xff", "not shift_jis: byte 1 of 4 (it begins like gzip)"),
    ],
)
def test_what_is_not_of_its_encoding(encoding: str, value: bytes, words: str) -> None:
    """The message names the encoding, the byte and the key."""
    error = refused(value, "text", packing(encoding))
    assert error.reason == "InvalidEncoding"
    assert words in error.message
    assert "set encoding of the route" in error.message


@pytest.mark.parametrize(
    ("value", "looks"),
    [
        (EVENT.encode("gb18030"), ""),
        (EVENT.encode("utf-16"), "UTF-16 with a byte order mark"),
        (codecs.BOM_UTF16_BE + EVENT.encode("utf-16-be"), "UTF-16 with a byte order mark"),
        (EVENT.encode("utf-32"), "UTF-32 with a byte order mark"),
        (zipped(EVENT.encode()), "gzip"),
        (zlib.compress(EVENT.encode()), "zlib, which is not unpacked"),
        (b"\x28\xb5\x2f\xfd\x04\x00\xff", "zstd, which is not unpacked"),
    ],
)
@pytest.mark.parametrize("value_format", ["json", "text"])
def test_what_is_not_utf_8_is_told_the_keys(value: bytes, looks: str, value_format: ValueFormat) -> None:
    """And what it looks like, where its first bytes say so."""
    error = refused(value, value_format)
    assert error.reason == "InvalidUtf8"
    assert "encoding of the route" in error.message
    assert "compression to gzip" in error.message
    assert looks in error.message
    assert "format" not in error.message


def test_utf_16_without_a_mark_is_told_the_key() -> None:
    """It is valid UTF-8, full of zero bytes, and no JSON."""
    error = refused('{"text": "ok"}'.encode("utf-16-le"))
    assert error.reason == "InvalidJson"
    assert "set encoding of the route" in error.message


PACKED = zipped(EVENT.encode())


def test_gzip_of_any_number_of_members() -> None:
    """As one who appends to a file writes it, empty ones too."""
    pieces = [EVENT[:5].encode(), b"", EVENT[5:].encode(), b""]
    assert read(b"".join(map(zipped, pieces)), "json", GZIP).event_id == "e-1"
    assert read(zipped(b"") * (MAX_MEMBERS - 1) + PACKED, "json", GZIP).event_id == "e-1"


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [
        (b"", "InvalidGzip", "cut short"),
        (PACKED[:1], "InvalidGzip", "cut short"),
        (PACKED[:-1], "InvalidGzip", "cut short"),
        (PACKED[:20], "InvalidGzip", "cut short"),
        (PACKED + PACKED[:5], "InvalidGzip", "cut short"),
        (PACKED + b"garbage", "InvalidGzip", f"7 bytes behind its end, at byte {len(PACKED)} of"),
        (PACKED + b"\0" * 8, "InvalidGzip", "8 bytes behind its end"),
        (EVENT.encode(), "InvalidGzip", "is no gzip; send gzip, or remove compression of the route"),
        (zlib.compress(EVENT.encode()), "InvalidGzip", "is no gzip (it begins like zlib"),
        (PACKED[:-8] + b"\0" * 8, "InvalidGzip", "damaged: incorrect data check"),
        (PACKED[:10] + b"\xff" * 30, "InvalidGzip", "damaged"),
        (zipped(b"") * (MAX_MEMBERS + 1), "InvalidGzip", f"more than {MAX_MEMBERS} members"),
        (zipped(b" " * (LIMIT + 1)), "ValueTooLarge", f"limits.value_bytes {LIMIT}"),
        (zipped(b" " * (LIMIT // 2 + 1)) * 2, "ValueTooLarge", f"limits.value_bytes {LIMIT}"),
        (zipped(b"\xff"), "InvalidUtf8", "byte 0 of 1"),
        (zipped(zipped(b"x")), "InvalidUtf8", "(it begins like gzip)"),
    ],
)
def test_what_cannot_be_unpacked(value: bytes, reason: str, words: str) -> None:
    """Each way has its own words, and none quotes the value."""
    error = refused(value, "json", GZIP)
    assert error.reason == reason
    assert words in error.message
    assert "壶嘴" not in error.message
    assert GZIP.size(value, LIMIT) <= LIMIT


def test_the_limit_is_of_what_comes_out() -> None:
    """It is inclusive, and all members count together."""
    for sizes in ([LIMIT], [LIMIT - 1, 1], [0, LIMIT, 0]):
        value = b"".join(zipped(b" " * size) for size in sizes)
        assert len(gunzip(value, LIMIT)) == LIMIT == GZIP.size(value, LIMIT)


def test_a_bomb_takes_no_more_than_the_limit() -> None:
    """Whatever it would unpack to."""
    value = zipped(bytes(50_000_000))
    tracemalloc.start()
    try:
        for _ in range(2):
            assert outcome(lambda: read(value, "json", GZIP))[0] == "ValueTooLarge"
            assert GZIP.size(value, LIMIT) == 0
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_damaged_gzip(content: bytes, place: int, byte: int) -> None:
    """Is bad input, or what was packed."""
    value = bytearray(zipped(content))
    value[place % len(value)] = byte
    reason, unpacked = outcome(lambda: gunzip(bytes(value), LIMIT))
    # Of the header, time and the like mean nothing.
    assert reason in ("InvalidGzip", "ValueTooLarge") or unpacked == content
