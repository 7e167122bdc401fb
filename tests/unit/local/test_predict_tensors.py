"""Tensors as TensorFlow's C++ reads and writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consumer.local.catalog import Refusal
from consumer.local.predict import NotCarried, parse, write
from consumer.serving.descriptors import TensorProto
from consumer.serving.tensors import ENCODINGS

CARRIED = [encoding for encoding in ENCODINGS.values() if encoding.name != "bfloat16"]


def proto(number: int, shape: tuple[int, ...], values: list[Any] | None = None, content: bytes = b"") -> Any:
    message = TensorProto(dtype=number, tensor_content=content)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    if values:
        getattr(message, ENCODINGS[number].field).extend(values)
    return message


@pytest.mark.parametrize("encoding", CARRIED, ids=lambda encoding: encoding.name)
@pytest.mark.parametrize("as_content", [False, True], ids=["typed", "content"])
def test_every_number_survives_both_encodings(encoding: Any, as_content: bool) -> None:
    """What is written in either encoding is parsed equal, in dtype, shape and values."""
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(encoding.wire)
    message = TensorProto()
    write("y", message, array, as_content=as_content)
    assert message.dtype == encoding.number
    assert bool(message.tensor_content) is as_content
    found = parse("y", TensorProto.FromString(message.SerializeToString()))
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (proto(3, (4,), [5, 6]), [5, 6, 6, 6]),
        (proto(3, (2,), [5, 6, 7]), [5, 6]),
        (proto(3, (3,)), [0, 0, 0]),
        (proto(1, (2,), [1.5]), [1.5, 1.5]),
        (proto(3, (0,)), []),
    ],
)
def test_typed_values_need_not_be_complete(message: Any, values: list[float]) -> None:
    """The last value fills up, more than enough are ignored, none are zeros."""
    array = parse("x", message)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == values


@pytest.mark.parametrize(
    "message",
    [
        proto(3, (2,), content=b"\0" * 7),
        proto(3, (2,), content=b"\0" * 12),
        proto(0, (1,), content=b"\0" * 4),
        proto(3, (-1,), content=b"\0" * 4),
        TensorProto(dtype=3, int_val=[1], tensor_shape={"unknown_rank": True}),
    ],
)
def test_what_cannot_be_parsed_is_refused(message: Any) -> None:
    """Content of another length, DT_INVALID and a dimension of -1 have the real server's text."""
    with pytest.raises(Refusal) as caught:
        parse("x", message)
    assert (caught.value.code.name, caught.value.message) == ("INVALID_ARGUMENT", "tensor parsing error: x")


@pytest.mark.parametrize("as_content", [False, True], ids=["typed", "content"])
def test_strings_are_carried(as_content: bool) -> None:
    """Typed values are filled up and cut as numbers are; content is all lengths, then all bytes."""
    message = TensorProto(dtype=7, tensor_shape={"dim": [{"size": 2}, {"size": 2}]})
    if as_content:
        message.tensor_content = b"\x01\x00\x80\x01\x02a" + b"b" * 128 + b"cd"
    else:
        message.string_val.extend([b"a", b"", b"b" * 128, b"cd", b"one too many"])
    array = parse("x", message)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [[b"a", b""], [b"b" * 128, b"cd"]]
    out = TensorProto()
    write("y", out, array, as_content=as_content)
    assert (out.dtype, list(out.string_val)) == (7, [b"a", b"", b"b" * 128, b"cd"])
    message = TensorProto(dtype=7, string_val=[b"a"], tensor_shape={"dim": [{"size": 3}]})
    filled = parse("x", message)
    assert isinstance(filled, np.ndarray)
    assert filled.tolist() == [b"a", b"a", b"a"]


@pytest.mark.parametrize(
    "message",
    [
        TensorProto(dtype=7, tensor_content=b"\x02a", tensor_shape={"dim": [{"size": 1}]}),
        TensorProto(dtype=7, tensor_content=b"\x01ab", tensor_shape={"dim": [{"size": 1}]}),
        TensorProto(dtype=7, tensor_content=b"\xff", tensor_shape={"dim": [{"size": 1}]}),
        TensorProto(dtype=7, tensor_content=b"\x00", tensor_shape={"dim": [{"size": 2}]}),
        proto(999, (1,), content=b"\0" * 4),
        proto(26, (1,)),
        proto(103, (1,)),
        proto(8, (1,), content=b"\0" * 7),
        proto(20, (1,), content=b"\0"),
        proto(1, (1,) * 255),
        proto(1, (2**40,), [1.0]),
        proto(7, (2**40,)),
    ],
)
def test_what_tensorflow_cannot_read_either(message: Any) -> None:
    """Strings whose lengths do not fit, dtypes that do not exist, references, and more than a machine has room for."""
    with pytest.raises(Refusal) as caught:
        parse("x", message)
    assert (caught.value.code.name, caught.value.message) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_integers_that_are_too_large_for_their_dtype_are_cut() -> None:
    """As a cast in C++ does it, not as an error of this program."""
    for message, values in ((proto(4, (2,), [300, -1]), [44, 255]), (proto(6, (1,), [200]), [-56])):
        array = parse("x", message)
        assert isinstance(array, np.ndarray)
        assert array.tolist() == values
    halves = parse("x", proto(19, (2,), [0x3C00, 0x13C00]))
    assert isinstance(halves, np.ndarray)
    assert halves.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("number", [8, 11, 12, 13, 14, 15, 16, 18, 20, 21, 24, 25, 29, 30])
def test_other_dtypes_of_tensorflow_are_read_and_not_run(number: int) -> None:
    """A signature of another dtype refuses them first; one of theirs is not run here."""
    assert isinstance(parse("x", proto(number, (2,))), NotCarried)
    with pytest.raises(Refusal, match="UNIMPLEMENTED: tensor y"):
        write("y", TensorProto(), np.array([1j], np.complex64), as_content=False)


def test_a_shape_that_overflows_is_refused_although_a_size_is_0() -> None:
    """Found by fuzzing: no values to hold, and still no shape."""
    with pytest.raises(Refusal, match="tensor parsing error"):
        parse("x", proto(3, (0, 2**62)))
    empty = parse("x", proto(3, (0, 2**20), content=b"ignored"))
    assert isinstance(empty, np.ndarray)
    assert empty.shape == (0, 2**20)
