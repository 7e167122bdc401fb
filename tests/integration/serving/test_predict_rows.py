"""What the local model server answers and refuses, case by case as the real server (r2.17) does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.local.example_calls import CLASSIFY, MULTI_INFERENCE, REGRESS
from consumer.serving.descriptors import GET_MODEL_METADATA, GET_MODEL_STATUS, PREDICT, SignatureDefMap, TensorProto
from consumer.serving.errors import classify
from consumer.serving.protocol import Failure

if TYPE_CHECKING:
    from consumer.serving.descriptors import Method

Caller = Any
"""The class of that name in this folder's conftest.py."""

pytestmark = pytest.mark.model

ONES = np.ones((2, 3), np.float32)


def proto(shape: tuple[int, ...], *, number: int = 1, content: bytes = b"", values: tuple[float, ...] = ()) -> Any:
    message = TensorProto(dtype=number, tensor_content=content, float_val=values)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def floats(response: Any, alias: str = "y") -> list[float]:
    return list(response.outputs[alias].float_val)


def test_a_call_is_answered_with_typed_fields(demo: Caller) -> None:
    """Outputs come in float_val, with shape, dtype, model, signature and the version that answered."""
    response = demo.predict({"x": ONES})
    output = response.outputs["y"]
    assert (output.dtype, [dim.size for dim in output.tensor_shape.dim]) == (1, [2, 3])
    assert list(output.float_val) == [2.0] * 6
    assert output.tensor_content == b""
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("demo", "serving_default", 1)


def test_every_kind_of_number_comes_back(demo: Caller) -> None:
    """Integers, halves, booleans and doubles, in vectors and scalars, survive the round trip."""
    inputs = {
        "i": np.array([-1, 2**31 - 1], np.int32),
        "l": np.array([-(2**60)], np.int64),
        "h": np.array([0.5, -65504.0], np.float16),
        "b": np.array([True, False]),
        "d": np.array(1e300),
    }
    outputs = demo.predict(inputs, signature="kinds").outputs
    assert list(outputs["i_out"].int_val) == [-1, 2**31 - 1]
    assert list(outputs["l_out"].int64_val) == [-(2**60)]
    assert np.array(outputs["h_out"].half_val, np.uint16).view(np.float16).tolist() == [0.5, -65504.0]
    assert list(outputs["b_out"].bool_val) == [True, False]
    assert list(outputs["d_out"].double_val) == [1e300]
    assert len(outputs["d_out"].tensor_shape.dim) == 0


def test_an_output_filter_leaves_the_rest_out(demo: Caller) -> None:
    """Only the outputs asked for are computed and sent."""
    pair = {"a": np.array([3], np.int32), "b": np.array([4], np.int32)}
    assert sorted(demo.predict(pair, signature="two").outputs) == ["product", "sum"]
    filtered = demo.predict(pair, signature="two", outputs=("product",)).outputs
    assert {alias: list(output.int_val) for alias, output in filtered.items()} == {"product": [12]}


REFUSED = [
    ({"signature": "nope"}, "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
    (
        {"inputs": {"z": ONES}},
        "INVALID_ARGUMENT",
        (
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {z}, or default input alias set: "
        ),
    ),
    (
        {"inputs": {"x": ONES, "z": ONES}},
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
    ),
    (
        {"inputs": {}},
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    ),
    (
        {"inputs": {"x": ONES.astype(np.int32)}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but int32 is provided",
    ),
    (
        {"inputs": {"x": np.ones((2, 5), np.float32)}, "signature": "matmul"},
        "INVALID_ARGUMENT",
        "Matrix size-incompatible: In[0]: [2,5], In[1]: [3,2]",
    ),
    ({"inputs": {"x": proto((2, 3), content=b"\0" * 23)}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    ({"inputs": {"x": proto((2, 3), number=0)}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    ({"inputs": {"x": proto((-1, 3), content=b"\0" * 12)}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    (
        {"outputs": ("q",)},
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
    ),
    ({"outputs": ("y", "y")}, "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    ({"model": "nomodel"}, "NOT_FOUND", "Servable not found for request: Latest(nomodel)"),
    ({"version": 99}, "NOT_FOUND", "Servable not found for request: Specific(demo, 99)"),
    ({"label": "canary"}, "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
    ({"label": ""}, "INVALID_ARGUMENT", "Unrecognized servable version label: "),
    ({"version": 0}, "NOT_FOUND", "Servable not found for request: Specific(demo, 0)"),
    ({"version": 1, "label": "canary"}, "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
    (
        {"inputs": {"x": proto((2, 3), number=7)}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but string is provided",
    ),
    (
        {"inputs": {"x": TensorProto(dtype=7, string_val=[b"a"])}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but string is provided",
    ),
    (
        {"inputs": {"x": proto((1, 3), number=8)}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but complex64 is provided",
    ),
    (
        {"inputs": {"x": proto((1,), number=14)}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but bfloat16 is provided",
    ),
    (
        {"inputs": {"x": proto((1,), number=20)}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but resource is provided",
    ),
    (
        {"inputs": {"x": proto((2, 3), number=9)}},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but int64 is provided",
    ),
    ({"inputs": {"x": proto((2, 3), number=999)}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    ({"inputs": {"x": proto((2, 3), number=101)}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    ({"inputs": {"x": proto((2**40,), values=(1.0,))}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    ({"inputs": {"x": proto((2**62, 2**62))}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    ({"inputs": {"x": proto((1,) * 300)}}, "INVALID_ARGUMENT", "tensor parsing error: x"),
    (
        {"inputs": {"x": TensorProto(dtype=1, tensor_shape={"unknown_rank": True})}},
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    (
        {"inputs": {"x": ONES.astype(np.int32)}, "outputs": ("q",)},
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
    ),
    ({"model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
]
BATCH_FAULTS = ("Matrix size-incompatible", "tensor parsing error")


@pytest.mark.parametrize(("asked", "code", "text"), REFUSED)
def test_a_refused_call_has_the_status_and_text_of_the_real_server(
    demo: Caller, asked: dict[str, Any], code: str, text: str
) -> None:
    """Each case is refused as observed on r2.17, and the client knows its class."""
    found_code, found_text = demo.refusal(**asked)
    assert found_code == code
    if text.startswith("Matrix"):
        assert found_text.startswith(text)  # the name of the operation's node follows
    else:
        assert found_text == text
    expected = Failure.BATCH_FAULT if text.startswith(BATCH_FAULTS) else Failure.DEPLOYMENT
    assert classify(found_code, found_text)[0] is expected


def test_a_signature_without_an_output_that_can_be_fetched_has_tensorflow_s_own_words(demo: Caller) -> None:
    """It was UNKNOWN, with a Python exception's text."""
    code, text = demo.refusal(signature="__saved_model_init_op", inputs={})
    assert code == "OUT_OF_RANGE"
    assert "does not have output 0" in text


SPEC = {"name": "demo"}
SIGNATURES = {"metadata_field": ["signature_def"]}
OTHERS = [
    (CLASSIFY, {"model_spec": {"name": "zz"}}, "NOT_FOUND", "Servable not found for request: Latest(zz)"),
    (CLASSIFY, {"model_spec": {}}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (
        CLASSIFY,
        {"model_spec": {**SPEC, "signature_name": "nope"}},
        "INVALID_ARGUMENT",
        "No signature was found with the name: nope",
    ),
    (CLASSIFY, {"model_spec": SPEC}, "INVALID_ARGUMENT", "No classification inputs found in SignatureDef: inputs {"),
    (CLASSIFY, {"model_spec": {**SPEC, "signature_name": "two"}}, "INVALID_ARGUMENT", "Expected one input Tensor."),
    (REGRESS, {"model_spec": SPEC}, "INVALID_ARGUMENT", "No regression inputs found in SignatureDef: inputs {"),
    (REGRESS, {"model_spec": {**SPEC, "signature_name": "two"}}, "INVALID_ARGUMENT", "Expected one input Tensor."),
    (MULTI_INFERENCE, {}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (
        MULTI_INFERENCE,
        {"tasks": [{"model_spec": {**SPEC, "signature_name": "two"}, "method_name": "tensorflow/serving/regress"}]},
        "INVALID_ARGUMENT",
        "Expected one input Tensor.",
    ),
    (GET_MODEL_METADATA, {"model_spec": {}, **SIGNATURES}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (
        GET_MODEL_METADATA,
        {"model_spec": {**SPEC, "version": {"value": 9}}, **SIGNATURES},
        "NOT_FOUND",
        "Servable not found for request: Specific(demo, 9)",
    ),
    (
        GET_MODEL_METADATA,
        {"model_spec": {"name": "zz"}, "metadata_field": ["signature_def", "other"]},
        "INVALID_ARGUMENT",
        "Metadata field %s is not supportedother",
    ),
    (GET_MODEL_STATUS, {"model_spec": {}}, "NOT_FOUND", "Could not find any versions of model "),
    (
        GET_MODEL_STATUS,
        {"model_spec": {**SPEC, "version": {"value": 0}}},
        "NOT_FOUND",
        "Could not find version 0 of model demo",
    ),
]


@pytest.mark.parametrize(("method", "request_", "code", "text"), OTHERS)
def test_other_calls_are_refused_in_the_real_server_s_words(
    demo: Caller, method: Method, request_: dict[str, Any], code: str, text: str
) -> None:
    """Calls that no export answers, and odd ones of those that it does; texts as in the real server's sources."""
    found_code, found_text = demo.refusal(method, method.request(**request_))
    assert found_code == code
    assert found_text.startswith(text)


def test_strings_go_through_a_graph(demo: Caller) -> None:
    """As numbers do, in either encoding."""
    shape = {"dim": [{"size": 2}, {"size": 2}]}
    for given in (
        TensorProto(dtype=7, string_val=[b"a", b"b", b"", b"d"], tensor_shape=shape),
        TensorProto(dtype=7, tensor_content=b"\1\1\0\1abd", tensor_shape=shape),
    ):
        response = demo.predict({"s": given}, signature="words")
        assert list(response.outputs["joined"].string_val) == [b"ab", b"d"]


def test_no_rows_are_no_failure(demo: Caller) -> None:
    """The graph runs on an empty batch, too."""
    response = demo.predict({"x": np.ones((0, 3), np.float32)})
    assert ([dim.size for dim in response.outputs["y"].tensor_shape.dim], floats(response)) == ([0, 3], [])


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (PREDICT, PREDICT.request()),
        (CLASSIFY, CLASSIFY.request()),
        (REGRESS, REGRESS.request()),
        (GET_MODEL_STATUS, GET_MODEL_STATUS.request()),
        (GET_MODEL_METADATA, GET_MODEL_METADATA.request(metadata_field=["signature_def"])),
    ],
    ids=["predict", "classify", "regress", "status", "metadata"],
)
def test_a_call_without_model_spec_is_refused(demo: Caller, method: Method, request_: Any) -> None:
    """No method guesses which model is meant."""
    assert demo.refusal(method, request_) == ("INVALID_ARGUMENT", "Missing ModelSpec")


def test_a_shape_that_the_graph_can_run_is_run(demo: Caller) -> None:
    """The signature's shape is not checked."""
    assert floats(demo.predict({"x": np.ones((1, 5), np.float32)})) == [2.0] * 5


@pytest.mark.parametrize(
    ("values", "result"),
    [((1.0, 5.0), [2.0, 10.0, 10.0]), ((1.0, 2.0, 3.0, 4.0), [2.0, 4.0, 6.0]), ((), [0.0, 0.0, 0.0])],
    ids=["few", "many", "none"],
)
def test_typed_values_are_filled_up_or_cut(demo: Caller, values: tuple[float, ...], result: list[float]) -> None:
    """Too few values repeat the last, too many are ignored, none are zeros: all without an error."""
    assert floats(demo.predict({"x": proto((1, 3), values=values)})) == result


def test_metadata_is_the_signature_map(demo: Caller) -> None:
    """The one field there is unpacks to all signatures; others, or none, are refused."""
    response = demo.metadata("signature_def")
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "matmul", "two", "kinds"} <= set(signatures.signature_def)
    assert signatures.signature_def["two"].inputs["a"].dtype == 3
    assert (response.model_spec.name, response.model_spec.version.value) == ("demo", 1)
    request = GET_MODEL_METADATA.request(metadata_field=["other"])
    request.model_spec.name = "demo"
    assert demo.refusal(GET_MODEL_METADATA, request) == (
        "INVALID_ARGUMENT",
        "Metadata field %s is not supportedother",
    )
    request.ClearField("metadata_field")
    text = "GetModelMetadataRequest must specify at least one metadata_field"
    assert demo.refusal(GET_MODEL_METADATA, request) == ("INVALID_ARGUMENT", text)
    request = GET_MODEL_METADATA.request(metadata_field=["signature_def"])
    request.model_spec.name = "zz"
    assert demo.refusal(GET_MODEL_METADATA, request)[0] == "NOT_FOUND"


def test_status_of_what_is_not_there_is_not_found(demo: Caller) -> None:
    """Unknown models and versions have the real server's texts; labels are ignored."""
    assert demo.status() == [(1, "AVAILABLE")]
    request = GET_MODEL_STATUS.request()
    request.model_spec.name = "demo"
    request.model_spec.version.value = 9
    assert demo.refusal(GET_MODEL_STATUS, request) == ("NOT_FOUND", "Could not find version 9 of model demo")
    request.model_spec.version_label = "canary"
    assert [entry.version for entry in demo(GET_MODEL_STATUS, request).model_version_status] == [1]
    request.model_spec.name = "zz"
    assert demo.refusal(GET_MODEL_STATUS, request) == ("NOT_FOUND", "Could not find any versions of model zz")
