"""numpy arrays to and from TensorProto, written and read straight, in either of its two encodings.

TensorFlow Serving answers with typed fields (``int_val``, ``float_val``, ``half_val``) up to r2.18 and can answer with
``tensor_content`` from r2.19; a request is always ``tensor_content`` of the exact length, because the server accepts
too few or too many typed values without a word.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumer.serving.protocol import Failure, ServingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray


class Encoding(NamedTuple):
    """How TensorProto carries one dtype. ``wire`` is the little-endian numpy dtype of ``tensor_content``."""

    name: str
    number: int
    wire: np.dtype[Any]
    field: str
    """The typed field. ``half_val`` holds the 16 bits of a half or a bfloat16 as an integer."""


def _encoding(name: str, number: int, wire: DTypeLike, field: str) -> Encoding:
    return Encoding(name, number, np.dtype(wire).newbyteorder("<"), field)


BFLOAT16 = 14
HALF = 19

ENCODINGS = {
    encoding.number: encoding
    for encoding in (
        _encoding("float", 1, np.float32, "float_val"),
        _encoding("double", 2, np.float64, "double_val"),
        _encoding("int32", 3, np.int32, "int_val"),
        _encoding("uint8", 4, np.uint8, "int_val"),
        _encoding("int16", 5, np.int16, "int_val"),
        _encoding("int8", 6, np.int8, "int_val"),
        _encoding("int64", 9, np.int64, "int64_val"),
        _encoding("bool", 10, np.bool_, "bool_val"),
        _encoding("bfloat16", BFLOAT16, np.uint16, "half_val"),
        _encoding("uint16", 17, np.uint16, "int_val"),
        _encoding("half", HALF, np.float16, "half_val"),
        _encoding("uint32", 22, np.uint32, "uint32_val"),
        _encoding("uint64", 23, np.uint64, "uint64_val"),
    )
}
"""By TensorFlow's DataType number. numpy has no bfloat16: its bits travel as uint16."""

_NUMBERS = {encoding.wire: number for number, encoding in ENCODINGS.items() if number != BFLOAT16}


def write_content(proto: Any, array: NDArray[Any]) -> None:
    """Fill an empty TensorProto with an array, as ``tensor_content``. Raises KeyError for a dtype without encoding."""
    number = _NUMBERS[array.dtype.newbyteorder("<")]
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    proto.tensor_content = np.ascontiguousarray(array, ENCODINGS[number].wire).tobytes()


def shape_of(proto: Any) -> tuple[int, ...]:
    """The shape a TensorProto states; -1 where it does not."""
    return tuple(dim.size for dim in proto.tensor_shape.dim)


def typed_values(proto: Any, encoding: Encoding) -> NDArray[Any]:
    """The values of the typed field, as many as there are, in ``encoding.wire``."""
    field = getattr(proto, encoding.field)
    if encoding.field == "half_val":
        return np.array(field, np.uint16).view(encoding.wire)
    return np.array(field, encoding.wire)


class Expected(NamedTuple):
    """What an output must be for the answer to be believed."""

    dtype: type[np.int32] | type[np.float32]
    shape: tuple[int, ...]


def read_output(outputs: Mapping[str, Any], name: str, expected: Expected) -> NDArray[Any]:
    """An output of a response as an array, read-only or not.

    Half and bfloat16 are widened where float32 is expected. Raises ServingError (DEPLOYMENT, ``ANSWER``) when the
    output is absent, of another dtype or shape, holds another number of values than its shape, or is not finite.
    """
    if name not in outputs:
        raise bad_answer(f"the answer has no output {name!r}, only {', '.join(sorted(outputs)) or 'none'}")
    proto = outputs[name]
    encoding = ENCODINGS.get(proto.dtype)
    floating = expected.dtype is np.float32
    allowed = ("float", "half", "bfloat16") if floating else ("int32",)
    if encoding is None or encoding.name not in allowed:
        found = encoding.name if encoding else f"of TensorFlow's dtype number {proto.dtype}"
        raise bad_answer(f"output {name!r} is {found}, not {' or '.join(allowed)}")
    shape = shape_of(proto)
    if shape != expected.shape or proto.tensor_shape.unknown_rank:
        raise bad_answer(f"output {name!r} has shape {list(shape)}, not {list(expected.shape)}")
    count = math.prod(shape)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * encoding.wire.itemsize:
            raise bad_answer(f"output {name!r} holds {len(proto.tensor_content)} bytes for shape {list(shape)}")
        values = np.frombuffer(proto.tensor_content, encoding.wire)
    else:
        values = typed_values(proto, encoding)
        if len(values) != count:
            raise bad_answer(f"output {name!r} holds {len(values)} values for shape {list(shape)}")
    if encoding.number == BFLOAT16:
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    array = values.astype(expected.dtype, copy=False).reshape(shape)
    if floating and not np.isfinite(array).all():
        raise bad_answer(f"output {name!r} holds values that are not finite")
    return array


def bad_answer(what: str) -> ServingError:
    """The failure for an answer that the signature does not allow."""
    return ServingError(
        Failure.DEPLOYMENT,
        "ANSWER",
        f"{what}; serve a model that 'rexstream export' wrote, in the version that model.bundle belongs to",
    )
