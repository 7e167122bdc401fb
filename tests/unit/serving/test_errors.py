"""Every row of what TensorFlow Serving answers, and what it means for the worker."""

from __future__ import annotations

import pytest

from consumer.serving.errors import classify, misfit, remedy, why_refused
from consumer.serving.protocol import Failure, Relief

BATCH, TRANSIENT, DEPLOYMENT = Failure.BATCH_FAULT, Failure.TRANSIENT, Failure.DEPLOYMENT

ROWS = [
    ("FAILED_PRECONDITION", 'Serving signature key "nope" not found.', DEPLOYMENT, Relief.NONE),
    (
        "INVALID_ARGUMENT",
        "Signature input alias: length(feed name: serving_default_length:0) not found in request and no default …",
        DEPLOYMENT,
        Relief.NONE,
    ),
    (
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
        DEPLOYMENT,
        Relief.NONE,
    ),
    ("INVALID_ARGUMENT", "Inputs contains invalid name. Used request inputs: {x}", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Expects arg[0] to be float but int32 is provided", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Expects arg[12] to be int32 but int64 is provided", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Matrix size-incompatible: In[0]: [2,5], In[1]: [3,2]", BATCH, Relief.NONE),
    ("INVALID_ARGUMENT", "indices[0,7] = 99999 is not in [0, 3025)", BATCH, Relief.NONE),
    ("INVALID_ARGUMENT", "tensor parsing error: input_ids", BATCH, Relief.NONE),
    ("INVALID_ARGUMENT", "", BATCH, Relief.NONE),
    ("INVALID_ARGUMENT", "output tensor alias not found in signature: q Outputs expected …", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "duplicate output tensor alias: y", DEPLOYMENT, Relief.NONE),
    ("NOT_FOUND", "Servable not found for request: Latest(nomodel)", DEPLOYMENT, Relief.NONE),
    ("NOT_FOUND", "Servable not found for request: Specific(demo, 99)", DEPLOYMENT, Relief.NONE),
    ("NOT_FOUND", "Could not find version 9 of model demo", DEPLOYMENT, Relief.NONE),
    ("NOT_FOUND", "Could not find any versions of model zz", DEPLOYMENT, Relief.NONE),
    ("NOT_FOUND", "Resource localhost/table/N10tensorflow does not exist.", TRANSIENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Unrecognized servable version label: canary", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Unrecognized servable version label: ", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "ModelSpec has no name specified.", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Missing ModelSpec", DEPLOYMENT, Relief.NONE),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", TRANSIENT, Relief.NONE),
    ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", TRANSIENT, Relief.FEWER_IN_FLIGHT),
    ("RESOURCE_EXHAUSTED", "", TRANSIENT, Relief.FEWER_IN_FLIGHT),
    (
        "RESOURCE_EXHAUSTED",
        "OOM when allocating tensor with shape[64,12,512,512] and type float on /job:localhost/device:GPU:0",
        TRANSIENT,
        Relief.SMALLER_MEMORY,
    ),
    (
        "RESOURCE_EXHAUSTED",
        "Out of memory while trying to allocate 8589934592 bytes.",
        TRANSIENT,
        Relief.SMALLER_MEMORY,
    ),
    (
        "RESOURCE_EXHAUSTED",
        "Received message larger than max (5242917 vs. 4194304)",
        TRANSIENT,
        Relief.FEWER_BYTES,
    ),
    ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)", TRANSIENT, Relief.FEWER_BYTES),
    ("RESOURCE_EXHAUSTED", "quota exceeded", TRANSIENT, Relief.NONE),
    (
        "UNAVAILABLE",
        "The batch scheduling queue to which this task was submitted is full; currently 10 batches enqueued",
        TRANSIENT,
        Relief.FEWER_IN_FLIGHT,
    ),
    ("UNAVAILABLE", "The batch scheduling queue is full", TRANSIENT, Relief.FEWER_IN_FLIGHT),
    (
        "RESOURCE_EXHAUSTED",
        "Run() timeout exceeded while waiting in batching queue",
        TRANSIENT,
        Relief.FEWER_IN_FLIGHT,
    ),
    ("UNAVAILABLE", "failed to connect to all addresses", TRANSIENT, Relief.NONE),
    # Server-side batching must be off. Its schedulers and runtimes have words of their own each.
    ("INVALID_ARGUMENT", "Task size 9 is larger than maximum batch size 8", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Task size 9 is larger than max input task size 8", DEPLOYMENT, Relief.NONE),
    (
        "FAILED_PRECONDITION",
        " Tensors in a single batch have different shapes other than first dimension and padding is turned off.",
        DEPLOYMENT,
        Relief.NONE,
    ),
    (
        "FAILED_PRECONDITION",
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
        DEPLOYMENT,
        Relief.NONE,
    ),
    ("INTERNAL", "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate", DEPLOYMENT, Relief.NONE),
    ("INTERNAL", "One or more tasks does not conform to batch signature", DEPLOYMENT, Relief.NONE),
    ("INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 8", DEPLOYMENT, Relief.NONE),
    (
        "FAILED_PRECONDITION",
        "Tensors with name 'input_ids' from different tasks have different shapes and padding is turned off.",
        DEPLOYMENT,
        Relief.NONE,
    ),
    ("FAILED_PRECONDITION", "Error while reading resource variable", TRANSIENT, Relief.NONE),
    ("UNAUTHENTICATED", "", DEPLOYMENT, Relief.NONE),
    ("PERMISSION_DENIED", "rbac: access denied", DEPLOYMENT, Relief.NONE),
    ("ABORTED", "", TRANSIENT, Relief.NONE),
    ("INTERNAL", "Batching dtype mismatch", TRANSIENT, Relief.NONE),
    ("CANCELLED", "", TRANSIENT, Relief.NONE),
    ("UNKNOWN", "", TRANSIENT, Relief.NONE),
    ("UNIMPLEMENTED", "", TRANSIENT, Relief.NONE),
    ("DATA_LOSS", "", TRANSIENT, Relief.NONE),
    ("OUT_OF_RANGE", "", TRANSIENT, Relief.NONE),
    ("A_CODE_OF_TOMORROW", "", TRANSIENT, Relief.NONE),
]


@pytest.mark.parametrize(("code", "message", "failure", "relief"), ROWS)
def test_status_and_text_decide_the_class(code: str, message: str, failure: Failure, relief: Relief) -> None:
    """A status and its text fall into the class that tells the worker what to do, with the load to send next."""
    assert classify(code, message) == (failure, relief)


@pytest.mark.parametrize("message", [message for code, message, *_ in ROWS if code == "INVALID_ARGUMENT"])
def test_text_alone_decides_nothing(message: str) -> None:
    """The text of a contract mismatch under a transient status stays transient."""
    assert classify("UNAVAILABLE", message) == (TRANSIENT, Relief.NONE)


@pytest.mark.parametrize(
    ("code", "message", "way"),
    [
        ("NOT_FOUND", "Servable not found for request: Specific(demo, 99)", "model.version"),
        ("NOT_FOUND", "Could not find version 9 of model demo", "model.version"),
        ("NOT_FOUND", "Servable not found for request: Latest(nomodel)", "model.name"),
        ("NOT_FOUND", "Could not find any versions of model zz", "model.name"),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: canary", "model.label"),
        ("INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 8", "without --enable_batching"),
        (
            "INVALID_ARGUMENT",
            "Batching Run() input tensors must have equal 0th-dimension size",
            "without --enable_batching",
        ),
        ("FAILED_PRECONDITION", "… different shapes and padding is turned off. …", "without --enable_batching"),
        ("INVALID_ARGUMENT", "Expects arg[0] to be float but int32 is provided", "rexstream export"),
        ("INVALID_ARGUMENT", "indices[0,7] = 99999 is not in [0, 3025)", None),
        ("UNAVAILABLE", "Socket closed", None),
    ],
)
def test_a_fault_of_the_deployment_has_a_way_out(code: str, message: str, way: str | None) -> None:
    """Each says what to change; what is no such fault has none."""
    found = remedy(code, message)
    assert (found is None) == (way is None) == (classify(code, message)[0] is not DEPLOYMENT)
    assert way is None or way in (found or "")


def test_bundle_and_model_that_do_not_belong_together_are_both_named() -> None:
    """A worker may hold several bundles: the one in question is said."""
    text = misfit("models/a/1/bundle (checkpoint 12ab)", "model a version 2 at host:8500", "contract 1, not 2")
    assert all(name in text for name in ("models/a/1/bundle (checkpoint 12ab)", "model a version 2 at host:8500"))


def test_a_refused_known_good_window_is_explained_in_one_line() -> None:
    """A smaller vocabulary as what it is; anything else in the server's first line."""
    text = "indices[0,1] = 4095 is not in [0, 3025)\n\t [[{{node Gather}}]]"
    assert why_refused(text) == "the bundle has a token 4095, and the served vocabulary only 3025 tokens"
    assert why_refused("no kernel\n\t [[x]]") == "the model refuses a known-good window: no kernel"
