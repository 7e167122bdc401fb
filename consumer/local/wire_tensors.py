"""TensorProto as TensorFlow's own C++ reads and writes it, with its leniencies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from consumer.local.refusal import Refusal
from consumer.serving.tensors import BFLOAT16, ENCODINGS, HALF, shape_of, typed_values, write_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_VALUES = 2**59
"""A shape of more overflows 64 bits when its bytes are counted, also where one of its sizes is 0."""

_NUMBERS = {encoding.wire: number for number, encoding in ENCODINGS.items() if number != BFLOAT16}


def parse(alias: str, proto: Any) -> NDArray[Any]:
    """The array of a request's input. Raises Refusal.

    ``tensor_content`` must have the exact length. Typed values need not: the last one fills up what is missing, more
    than enough are ignored, none at all are zeros.
    """
    shape = shape_of(proto)
    encoding = ENCODINGS.get(proto.dtype)
    unreadable = Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"tensor parsing error: {alias}")
    if proto.dtype == 0 or proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise unreadable
    if math.prod(max(size, 1) for size in shape) >= _MOST_VALUES:
        raise unreadable
    if encoding is None or proto.dtype == BFLOAT16:
        raise _not_carried(alias)
    count = math.prod(shape)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * encoding.wire.itemsize:
            raise unreadable
        return np.frombuffer(proto.tensor_content, encoding.wire).reshape(shape)
    given = typed_values(proto, encoding)[:count]
    values = np.full(count, given[-1] if len(given) else 0, encoding.wire)
    values[: len(given)] = given
    return values.reshape(shape)


def write_typed(proto: Any, array: NDArray[Any]) -> None:
    """Fill an empty TensorProto with an array in its typed field, as TensorFlow Serving answers by default."""
    number = _NUMBERS[array.dtype]
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    flat = array.reshape(-1)
    getattr(proto, ENCODINGS[number].field).extend((flat.view(np.uint16) if number == HALF else flat).tolist())


def write(alias: str, proto: Any, array: NDArray[Any], *, as_content: bool) -> None:
    """Fill an output of a response, in typed fields or as ``tensor_content``. Raises Refusal for other dtypes."""
    if array.dtype not in _NUMBERS:
        raise _not_carried(alias)
    if as_content:
        write_content(proto, array)
    else:
        write_typed(proto, array)


def _not_carried(alias: str) -> Refusal:
    return Refusal(
        grpc.StatusCode.UNIMPLEMENTED,
        f"tensor {alias}: the local model server carries numbers and booleans of TensorFlow's standard sizes only",
    )
