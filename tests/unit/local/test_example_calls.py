"""Calls with tf.Examples, refused in the real server's words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from consumer.local.catalog import Refusal
from consumer.local.example_calls import (
    CLASSIFY,
    MULTI_INFERENCE,
    REGRESS,
    classify,
    multi_inference,
    multi_inference_spec,
    regress,
)


def signature(inputs: str, outputs: str) -> Any:
    """Stands in for a SignatureDef; names separated by blanks."""
    tensors = [{name: SimpleNamespace(name=f"{name}:0") for name in names.split()} for names in (inputs, outputs)]
    return SimpleNamespace(inputs=tensors[0], outputs=tensors[1])


SIGNATURES = {
    "serving_default": signature("a b c", "y"),
    "one": signature("x", "y"),
    "wide": signature("x", "y z w"),
    "classes": signature("inputs", "classes scores"),
    "value": signature("inputs", "outputs"),
    "odd": signature("inputs", "y"),
}


@pytest.mark.parametrize(
    ("name", "of_classify", "of_regress"),
    [
        ("nope", "No signature was found with the name: nope", "No signature was found with the name: nope"),
        ("", "Expected one input Tensor.", "Expected one input Tensor."),
        ("one", "No classification inputs found in SignatureDef: ", "No regression inputs found in SignatureDef: "),
        ("wide", "Expected one or two output Tensors, found 3", "Expected one output Tensor."),
        ("odd", "Expected classification signature outputs to contain", "No regression outputs found in SignatureDef"),
        ("classes", "Input is empty.", "Expected one output Tensor."),
        ("value", "Expected classification signature outputs to contain", "Input is empty."),
    ],
)
def test_a_signature_that_does_not_fit_is_an_invalid_argument(name: str, of_classify: str, of_regress: str) -> None:
    """Missing, of another shape, or without examples."""
    for check, method, text in ((classify, CLASSIFY, of_classify), (regress, REGRESS, of_regress)):
        request = method.request(model_spec={"name": "demo", "signature_name": name})
        with pytest.raises(Refusal) as caught:
            check(SIGNATURES, request)
        assert caught.value.code.name == "INVALID_ARGUMENT"
        assert caught.value.message.startswith(text)


def tasks(*given: tuple[str, str, str]) -> Any:
    """A MultiInferenceRequest of (model, signature, method)."""
    return MULTI_INFERENCE.request(
        tasks=[
            {"model_spec": {"name": model, "signature_name": name}, "method_name": f"tensorflow/serving/{method}"}
            for model, name, method in given
        ]
    )


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (tasks(("demo", "classes", "classify"), ("", "", "regress")), "INVALID_ARGUMENT", "Found ModelSpec with an"),
        (tasks(("demo", "classes", "classify"), ("x", "", "regress")), "INVALID_ARGUMENT", "All ModelSpecs in a Multi"),
        (
            tasks(("demo", "value", "regress"), ("demo", "value", "regress")),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: value",
        ),
        (tasks(("demo", "nope", "regress")), "INVALID_ARGUMENT", "Requested signature not found in model graph: nope"),
        (tasks(("demo", "", "classify")), "INVALID_ARGUMENT", "Expected one input Tensor."),
        (
            tasks(("demo", "", "predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            tasks(("demo", "classes", "classify"), ("demo", "value", "regress")),
            "INVALID_ARGUMENT",
            "Input is empty.",
        ),
    ],
)
def test_several_signatures_at_once(request_: Any, code: str, text: str) -> None:
    """Each task is checked; what all allow still needs examples."""
    with pytest.raises(Refusal) as caught:
        multi_inference(SIGNATURES, request_)
    assert caught.value.code.name == code
    assert caught.value.message.startswith(text)


def test_with_examples_nothing_is_refused() -> None:
    """What the real server would answer passes the checks."""
    example: dict[str, Any] = {"example_list": {"examples": [{}]}}
    spec = {"name": "demo", "signature_name": "value"}
    regress(SIGNATURES, REGRESS.request(model_spec=spec, input=example))
    several = tasks(("demo", "classes", "classify"), ("demo", "value", "regress"))
    several.input.CopyFrom(REGRESS.request(input=example).input)
    multi_inference(SIGNATURES, several)
    assert multi_inference_spec(several).name == "demo"
    assert multi_inference_spec(MULTI_INFERENCE.request()).name == ""
