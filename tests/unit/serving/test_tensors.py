"""Arrays on the wire, in both encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from consumer.serving.descriptors import TensorProto
from consumer.serving.protocol import Failure, ServingError
from consumer.serving.tensors import ENCODINGS, Expected, read_output, write_content

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
INTS = arrays.arrays(np.int32, SHAPES)
FLOATS = arrays.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def typed(number: int, shape: tuple[int, ...], values: list[Any]) -> Any:
    """A TensorProto in the encoding of r2.17."""
    proto = TensorProto(dtype=number)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, ENCODINGS[number].field).extend(values)
    return proto


def over_the_wire(proto: Any) -> Any:
    return TensorProto.FromString(proto.SerializeToString())


def read(proto: Any, expected: Expected) -> Any:
    return read_output({"out": proto}, "out", expected)


@given(INTS)
def test_content_reads_back(array: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """What was written as tensor_content reads back equal, from memory in any order."""
    proto = TensorProto()
    write_content(proto, array.T)
    assert proto.tensor_content == np.ascontiguousarray(array.T).tobytes()
    np.testing.assert_array_equal(read(over_the_wire(proto), Expected(np.int32, array.T.shape)), array.T)


@given(INTS)
def test_typed_ints_read_back(array: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """int_val reads as the same array as tensor_content."""
    proto = typed(3, array.shape, array.ravel().tolist())
    found = read(over_the_wire(proto), Expected(np.int32, array.shape))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, array)


@given(FLOATS)
def test_typed_floats_read_back(array: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """float_val reads back bit for bit."""
    found = read(over_the_wire(typed(1, array.shape, array.ravel().tolist())), Expected(np.float32, array.shape))
    np.testing.assert_array_equal(found, array)


@given(arrays.arrays(np.float16, SHAPES, elements=st.floats(width=16, allow_nan=False, allow_infinity=False)))
def test_halves_are_widened(array: np.ndarray[Any, np.dtype[np.float16]]) -> None:
    """half_val and half content both become the float32 they stand for."""
    content = TensorProto()
    write_content(content, array)
    bits = typed(19, array.shape, array.view(np.uint16).ravel().tolist())
    for proto in (content, bits):
        found = read(over_the_wire(proto), Expected(np.float32, array.shape))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, array.astype(np.float32))


def test_bfloat16_is_widened() -> None:
    """bfloat16 bits are the upper half of the float32 they stand for."""
    values = np.array([1.5, -0.0078125, 0.0, 3.0e38], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    found = read(over_the_wire(typed(14, (4,), bits.tolist())), Expected(np.float32, (4,)))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, values, rtol=1e-2)


def unknown_rank() -> Any:
    proto = typed(3, (), [1])
    proto.tensor_shape.unknown_rank = True
    return proto


def short_content() -> Any:
    proto = typed(3, (2, 2), [])
    proto.tensor_content = b"\0" * 12
    return proto


@pytest.mark.parametrize(
    ("proto", "expected", "what"),
    [
        (typed(9, (2,), [1, 2]), Expected(np.int32, (2,)), "int64"),
        (typed(1, (2,), [1, 2]), Expected(np.int32, (2,)), "float"),
        (typed(3, (2,), [1, 2]), Expected(np.float32, (2,)), "int32"),
        (TensorProto(dtype=7, string_val=[b"x"]), Expected(np.int32, ()), "dtype number 7"),
        (typed(3, (3,), [1, 2, 3]), Expected(np.int32, (1, 3)), r"shape \[3\], not \[1, 3\]"),
        (typed(3, (-1,), [1]), Expected(np.int32, (1,)), "shape"),
        (unknown_rank(), Expected(np.int32, ()), "shape"),
        (typed(3, (3,), [1]), Expected(np.int32, (3,)), "1 values"),
        (typed(3, (1,), [1, 2]), Expected(np.int32, (1,)), "2 values"),
        (short_content(), Expected(np.int32, (2, 2)), "12 bytes"),
        (typed(1, (2,), [1.0, float("nan")]), Expected(np.float32, (2,)), "not finite"),
        (typed(1, (2,), [float("-inf"), 0.0]), Expected(np.float32, (2,)), "not finite"),
        (typed(19, (1,), [0x7C00]), Expected(np.float32, (1,)), "not finite"),
    ],
)
def test_a_wrong_answer_is_a_deployment_fault(proto: Any, expected: Expected, what: str) -> None:
    """An output of another dtype, shape, size or kind of number stops the worker and is named."""
    with pytest.raises(ServingError, match=what) as caught:
        read(over_the_wire(proto), expected)
    assert caught.value.failure is Failure.DEPLOYMENT
    assert caught.value.code == "ANSWER"
    assert "'out'" in caught.value.message


def test_a_missing_output_is_named() -> None:
    """An answer without the output says which outputs it has."""
    with pytest.raises(ServingError, match="no output 'cells', only count, scores"):
        read_output({"scores": TensorProto(), "count": TensorProto()}, "cells", Expected(np.int32, ()))
