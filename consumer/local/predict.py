"""One Predict call on one loaded model, checked and refused as TensorFlow Serving does it.

Tensors are read and written as TensorFlow's own C++ does it, with its leniencies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from consumer.local.catalog import Model, Refusal
from consumer.serving.descriptors import PREDICT
from consumer.serving.tensors import BFLOAT16, ENCODINGS, HALF, shape_of, typed_values, write_content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


DEFAULT_SIGNATURE = "serving_default"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT

_MOST_VALUES = 2**59
"""A shape of more overflows 64 bits when its bytes are counted, also where one of its sizes is 0."""

_MOST_FILLED_BYTES = 2**26
"""Largest tensor of typed values, which may be fewer than its shape asks for. The real server tries to allocate what is
asked for, and refuses with the same text where that fails."""

_MOST_DIMENSIONS = 64
"""numpy's limit. The real server's is 254, and no operation of it takes so many."""

_NUMBERS = {encoding.wire: number for number, encoding in ENCODINGS.items() if number != BFLOAT16}

STRING = 7

_NOT_CARRIED = {
    number: (name, size)
    for number, name, size in (
        (8, "complex64", 8),
        (11, "qint8", 1),
        (12, "quint8", 1),
        (13, "qint32", 4),
        (BFLOAT16, "bfloat16", 2),
        (15, "qint16", 2),
        (16, "quint16", 2),
        (18, "complex128", 16),
        (20, "resource", None),
        (21, "variant", None),
        (24, "float8_e5m2", 1),
        (25, "float8_e4m3fn", 1),
        (29, "int4", 1),
        (30, "uint4", 1),
    )
}
"""Dtypes that TensorFlow knows and that are not run here: name, and bytes of an element in ``tensor_content``."""


class NotCarried:
    """In the place of an array of a dtype that is not run here."""


def predict(model: Model, version: int, request: Any, *, as_content: bool = False) -> Any:
    """The PredictResponse. Outputs are typed fields unless ``as_content``. Raises Refusal.

    Shapes are not compared with the signature: what the graph can run is run.
    """
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(key)
    if signature is None:
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
    inputs = _inputs(signature, request.inputs)
    fetches = _fetches(signature, request.output_filter)
    fetched = model.run(_feeds(signature, request.inputs, inputs), sorted(set(fetches.values())))

    response = PREDICT.response()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = key
    response.model_spec.version.value = version
    for alias, name in fetches.items():
        write(alias, response.outputs[alias], fetched[name], as_content=as_content)
    return response


def _inputs(signature: Any, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any] | NotCarried]:
    """Alias to array."""
    required, sent = set(signature.inputs), set(inputs)
    if len(required) != len(sent):
        raise Refusal(
            _INVALID,
            f"input size does not match signature: {len(sent)}!={len(required)} len({_names(sent)}) != "
            f"len({_names(required)}). Sent extra: {_names(sent - required)}. "
            f"Missing but required: {_names(required - sent)}.",
        )
    arrays = {}
    for alias in sorted(required):
        info = signature.inputs[alias]
        if alias not in sent:
            raise Refusal(
                _INVALID,
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {_names(sent)}, or default input alias set: ",
            )
        arrays[alias] = parse(alias, inputs[alias])
    return arrays


def _feeds(
    signature: Any, inputs: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | NotCarried]
) -> dict[str, NDArray[Any]]:
    """Feed name to array, of the signature's dtypes: the last check, as in the real server."""
    feeds = {}
    aliases = sorted(arrays, key=lambda alias: signature.inputs[alias].name)
    for position, alias in enumerate(aliases):
        wanted, given = signature.inputs[alias].dtype, inputs[alias].dtype
        if wanted != given:
            raise Refusal(
                _INVALID,
                f"Expects arg[{position}] to be {_dtype_name(wanted)} but {_dtype_name(given)} is provided",
            )
    for alias in aliases:
        array = arrays[alias]
        if isinstance(array, NotCarried):
            raise _not_carried(alias)
        feeds[signature.inputs[alias].name] = array
    return feeds


def _fetches(signature: Any, output_filter: Sequence[str]) -> dict[str, str]:
    """Output alias to fetch name, in the order asked for."""
    fetches: dict[str, str] = {}
    for alias in output_filter or sorted(signature.outputs):
        if alias not in signature.outputs:
            raise Refusal(
                _INVALID,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_names(signature.outputs)}.",
            )
        if alias in fetches:
            raise Refusal(_INVALID, f"duplicate output tensor alias: {alias}")
        fetches[alias] = signature.outputs[alias].name
    return fetches


def _names(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _dtype_name(number: int) -> str:
    if number == STRING:
        return "string"
    if number in _NOT_CARRIED:
        return _NOT_CARRIED[number][0]
    return ENCODINGS[number].name if number in ENCODINGS else f"dtype {number}"


def parse(alias: str, proto: Any) -> NDArray[Any] | NotCarried:
    """The array of a request's input, of Python bytes for strings. Raises Refusal.

    ``tensor_content`` must have the exact length. Typed values need not: the last one fills up what is missing, more
    than enough are ignored, none at all are zeros or empty strings.
    """
    shape = shape_of(proto)
    unreadable = Refusal(_INVALID, f"tensor parsing error: {alias}")
    impossible = any(size < 0 for size in shape) or math.prod(max(size, 1) for size in shape) >= _MOST_VALUES
    if proto.tensor_shape.unknown_rank or impossible or len(shape) > _MOST_DIMENSIONS:
        raise unreadable
    count = math.prod(shape)
    if proto.dtype == STRING:
        return _strings(proto, shape, unreadable)
    if proto.dtype in _NOT_CARRIED:
        _, size = _NOT_CARRIED[proto.dtype]
        if proto.tensor_content and (size is None or len(proto.tensor_content) != count * size) and count:
            raise unreadable
        return NotCarried()
    encoding = ENCODINGS.get(proto.dtype)
    if encoding is None:
        raise unreadable
    if proto.tensor_content and count:
        if len(proto.tensor_content) != count * encoding.wire.itemsize:
            raise unreadable
        return np.frombuffer(proto.tensor_content, encoding.wire).reshape(shape)
    if count * encoding.wire.itemsize > _MOST_FILLED_BYTES:
        raise unreadable
    given = typed_values(proto, encoding)[:count]
    values = np.full(count, given[-1] if len(given) else 0, encoding.wire)
    values[: len(given)] = given
    return values.reshape(shape)


def _strings(proto: Any, shape: tuple[int, ...], unreadable: Refusal) -> NDArray[Any]:
    """The array of a tensor of strings, whose content is the lengths of all (varints) and then all bytes."""
    count = math.prod(shape)
    if count * 8 > _MOST_FILLED_BYTES:
        raise unreadable
    array = np.full(count, b"", object)
    if proto.tensor_content:
        at, lengths = 0, []
        for _ in range(count):
            length, at = _varint(proto.tensor_content, at)
            if length is None:
                raise unreadable
            lengths.append(length)
        if count and at + sum(lengths) != len(proto.tensor_content):
            raise unreadable
        for place, length in enumerate(lengths):
            array[place] = proto.tensor_content[at : at + length]
            at += length
    else:
        given = list(proto.string_val[:count])
        array[: len(given)] = given
        array[len(given) :] = given[-1] if given else b""
    return array.reshape(shape)


def _varint(content: bytes, at: int) -> tuple[int | None, int]:
    """The number of 32 bits that begins at ``at``, and where the next one does; None where there is none."""
    number = 0
    for place, byte in enumerate(content[at : at + 5]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number & 0xFFFFFFFF, at + place + 1
    return None, at


def write(alias: str, proto: Any, array: NDArray[Any], *, as_content: bool) -> None:
    """Fill an empty TensorProto, in its typed field (TensorFlow Serving's default) or as ``tensor_content``.

    Strings are typed fields always. Raises Refusal for a dtype that is not run here.
    """
    if array.dtype == object:
        proto.dtype = STRING
        for size in array.shape:
            proto.tensor_shape.dim.add().size = size
        proto.string_val.extend(array.reshape(-1).tolist())
        return
    number = _NUMBERS.get(array.dtype)
    if number is None:
        raise _not_carried(alias)
    if as_content:
        write_content(proto, array)
        return
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    flat = array.reshape(-1)
    getattr(proto, ENCODINGS[number].field).extend((flat.view(np.uint16) if number == HALF else flat).tolist())


def _not_carried(alias: str) -> Refusal:
    return Refusal(
        grpc.StatusCode.UNIMPLEMENTED,
        f"tensor {alias}: the local model server runs strings, booleans and numbers of standard sizes only",
    )
