"""One Predict call on one loaded model, checked and refused as TensorFlow Serving does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from consumer.local import wire_tensors
from consumer.local.refusal import Refusal
from consumer.serving.descriptors import PREDICT
from consumer.serving.tensors import ENCODINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from consumer.local.servable import Model

DEFAULT_SIGNATURE = "serving_default"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


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
        wire_tensors.write(alias, response.outputs[alias], fetched[name], as_content=as_content)
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
        arrays[info.name] = wire_tensors.parse(alias, inputs[alias])
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
