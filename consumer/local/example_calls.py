"""Classify, Regress and MultiInference, which take tf.Examples: why TensorFlow Serving refuses them, in its words.

No model that ``rexstream export`` writes has a signature for them. Their methods' names are not compared with the
signature's, as is the real server's default; what fits in spite of that is not answered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from consumer.local.catalog import Refusal
from consumer.local.predict import DEFAULT_SIGNATURE
from consumer.serving import descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

CLASSIFY = descriptors.method("tensorflow.serving.PredictionService", "Classify")
REGRESS = descriptors.method("tensorflow.serving.PredictionService", "Regress")
MULTI_INFERENCE = descriptors.method("tensorflow.serving.PredictionService", "MultiInference")
ModelSpec: Any = descriptors.message_class("tensorflow.serving.ModelSpec")


def classify(signatures: Mapping[str, Any], request: Any) -> None:
    """Raise Refusal for a ClassificationRequest that the signatures do not allow, or that has no examples."""
    _require_classification(_signature(signatures, request))
    _require_examples(request.input)


def regress(signatures: Mapping[str, Any], request: Any) -> None:
    """The same for a RegressionRequest."""
    _require_regression(_signature(signatures, request))
    _require_examples(request.input)


def multi_inference_spec(request: Any) -> Any:
    """The ModelSpec of a MultiInferenceRequest: its first task's, or an empty one."""
    return request.tasks[0].model_spec if request.tasks else ModelSpec()


def multi_inference(signatures: Mapping[str, Any], request: Any) -> None:
    """The same for a MultiInferenceRequest."""
    model = request.tasks[0].model_spec.name
    seen: set[str] = set()
    feeds: set[str] = set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise _invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != model:
            raise _invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = _name(task.model_spec)
        if name in seen:
            raise _invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if name not in signatures:
            raise _invalid(f"Requested signature not found in model graph: {name}")
        match task.method_name:
            case "tensorflow/serving/classify":
                feeds.add(_require_classification(signatures[name]))
            case "tensorflow/serving/regress":
                feeds.add(_require_regression(signatures[name]))
            case other:
                raise Refusal(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {other}")
        if len(feeds) > 1:
            raise _invalid("Input tensor must be the same for all Signatures.")
    _require_examples(request.input)


def not_answered() -> Refusal:
    """For a call that the real server would answer."""
    return Refusal(
        grpc.StatusCode.UNIMPLEMENTED, "the local model server answers Predict, and no calls with tf.Examples"
    )


def _signature(signatures: Mapping[str, Any], request: Any) -> Any:
    name = _name(request.model_spec)
    if name not in signatures:
        raise _invalid(f"No signature was found with the name: {name}")
    return signatures[name]


def _require_classification(signature: Any) -> str:
    """The name of the tensor to feed."""
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise _invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise _invalid(f"No classification inputs found in SignatureDef: {signature}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise _invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )
    feed: str = signature.inputs["inputs"].name
    return feed


def _require_regression(signature: Any) -> str:
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise _invalid("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise _invalid(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise _invalid(f"No regression outputs found in SignatureDef: {signature}")
    feed: str = signature.inputs["inputs"].name
    return feed


def _require_examples(given: Any) -> None:
    kind = given.WhichOneof("kind")
    if kind is None or not getattr(given, kind).examples:
        raise _invalid("Input is empty.")


def _name(spec: Any) -> str:
    name: str = spec.signature_name or DEFAULT_SIGNATURE
    return name


def _invalid(message: str) -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, message)
