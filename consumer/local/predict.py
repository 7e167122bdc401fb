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

_NUMBERS = {encoding.wire: number for number, encoding in ENCODINGS.items() if number != BFLOAT16}


def predict(model: Model, version: int, request: Any, *, as_content: bool = False) -> Any:
    """The PredictResponse. Outputs are typed fields unless ``as_content``. Raises Refusal.

    Shapes are not compared with the signature: what the graph can run is run.
    """
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(key)
    if signature is None:
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
    feeds = _feeds(signature, request.inputs)
    fetches = _fetches(signature, request.output_filter)
    fetched = model.run(feeds, sorted(set(fetches.values())))

    response = PREDICT.response()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = key
    response.model_spec.version.value = version
    for alias, name in fetches.items():
        write(alias, response.outputs[alias], fetched[name], as_content=as_content)
    return response


def _feeds(signature: Any, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Feed name to array."""
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
        arrays[info.name] = parse(alias, inputs[alias])
    dtypes = {info.name: (info.dtype, inputs[alias].dtype) for alias, info in signature.inputs.items()}
    for position, name in enumerate(sorted(arrays)):
        wanted, given = dtypes[name]
        if wanted != given:
            raise Refusal(
                _INVALID,
                f"Expects arg[{position}] to be {_dtype_name(wanted)} but {_dtype_name(given)} is provided",
            )
    return arrays


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
    return ENCODINGS[number].name if number in ENCODINGS else f"dtype {number}"


def parse(alias: str, proto: Any) -> NDArray[Any]:
    """The array of a request's input. Raises Refusal.

    ``tensor_content`` must have the exact length. Typed values need not: the last one fills up what is missing, more
    than enough are ignored, none at all are zeros.
    """
    shape = shape_of(proto)
    encoding = ENCODINGS.get(proto.dtype)
    unreadable = Refusal(_INVALID, f"tensor parsing error: {alias}")
    impossible = any(size < 0 for size in shape) or math.prod(max(size, 1) for size in shape) >= _MOST_VALUES
    if proto.dtype == 0 or proto.tensor_shape.unknown_rank or impossible:
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


def write(alias: str, proto: Any, array: NDArray[Any], *, as_content: bool) -> None:
    """Fill an empty TensorProto, in its typed field (TensorFlow Serving's default) or as ``tensor_content``.

    Raises Refusal for a dtype that is neither a number nor a boolean.
    """
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
        f"tensor {alias}: the local model server carries numbers and booleans of TensorFlow's standard sizes only",
    )
