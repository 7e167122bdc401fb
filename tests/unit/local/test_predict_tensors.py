"""Tensors as TensorFlow's C++ reads and writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consumer.local.catalog import Refusal
from consumer.local.predict import parse, write
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
    assert parse("x", message).tolist() == values


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


def test_strings_are_not_carried() -> None:
    """A tensor of strings is refused with what the local server carries."""
    with pytest.raises(Refusal, match=r"UNIMPLEMENTED: tensor x: .*numbers and booleans"):
        parse("x", TensorProto(dtype=7, string_val=[b"a"]))
    with pytest.raises(Refusal, match="UNIMPLEMENTED: tensor y"):
        write("y", TensorProto(), np.array([b"a"], object), as_content=False)


def test_a_shape_that_overflows_is_refused_although_a_size_is_0() -> None:
    """Found by fuzzing: no values to hold, and still no shape."""
    with pytest.raises(Refusal, match="tensor parsing error"):
        parse("x", proto(3, (0, 2**62)))
    assert parse("x", proto(3, (0, 2**20))).shape == (0, 2**20)
