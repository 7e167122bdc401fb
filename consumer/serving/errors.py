"""What a failed call to TensorFlow Serving means: (status name, message) to (class, relief). Pure.

The texts are those of TensorFlow Serving r2.17 and r2.19. A text is only looked for where its status alone does not
say whether the batch, the load or the deployment is at fault.
"""

from __future__ import annotations

import re

from consumer.serving.protocol import Failure, Relief

_CONTRACT_TEXTS = (
    # Names, counts and dtypes of tensors: the same for every batch, so no event is to blame.
    "Signature input alias:",
    "input size does not match signature",
    "Inputs contains invalid name",
    "output tensor alias not found in signature",
    "duplicate output tensor alias",
    # The address in the request.
    "Unrecognized servable version label",
    "ModelSpec has no name specified",
    "Missing ModelSpec",
    # Server-side batching, which must be off: it fails our batches for rows and sizes that are not ours.
    "larger than maximum input batch size",
)
_WRONG_DTYPE = re.compile(r"Expects arg\[\d+\] to be \w+ but \w+ is provided")
_SERVABLE_MISSING = re.compile(r"Servable not found for request|Could not find (version|any versions)")
_OUT_OF_MEMORY = re.compile(r"OOM when allocating|out of memory", re.IGNORECASE)

Classified = tuple[Failure, Relief]


def classify(code: str, message: str) -> Classified:
    """Class and relief for a gRPC status name such as ``INVALID_ARGUMENT`` and the message that came with it.

    A code or text that is not known is transient: an unknown fault must never turn events into dead letters. A missing
    servable is a deployment fault: the worker stops, says so, asks again by itself and goes on once it appears, and
    the wait never counts against a window as transient failures do.
    """
    match code:
        case "INVALID_ARGUMENT":
            if any(text in message for text in _CONTRACT_TEXTS) or _WRONG_DTYPE.search(message):
                return Failure.DEPLOYMENT, Relief.NONE
            return Failure.BATCH_FAULT, Relief.NONE
        case "FAILED_PRECONDITION":
            if "Serving signature key" in message or "different shapes and padding is turned off" in message:
                return Failure.DEPLOYMENT, Relief.NONE
        case "NOT_FOUND":
            if _SERVABLE_MISSING.search(message):
                return Failure.DEPLOYMENT, Relief.NONE
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return Failure.DEPLOYMENT, Relief.NONE
        case "RESOURCE_EXHAUSTED":
            return Failure.TRANSIENT, _relief(message)
    return Failure.TRANSIENT, Relief.NONE


def _relief(message: str) -> Relief:
    if _OUT_OF_MEMORY.search(message):
        return Relief.SMALLER_MEMORY
    if "message larger than max" in message:
        return Relief.FEWER_BYTES
    if not message or "Server Threadpool Exhausted" in message:
        return Relief.FEWER_IN_FLIGHT
    return Relief.NONE
