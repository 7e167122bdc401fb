"""What a failed call to TensorFlow Serving means: (status name, message) to (class, relief). Pure.

Called by the clients of a model server; what follows from it is decided in ``dispatch.decisions``.

The texts are those of TensorFlow Serving r2.17 and r2.19. A text is only looked for where its status alone does not
say whether the batch, the load or the deployment is at fault.
"""

from __future__ import annotations

import re

from consumer.serving.protocol import Failure, Relief

_CONTRACT_TEXTS = (
    # Names, counts and dtypes of tensors: the same for every batch, so no event is the cause.
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
_DEPLOYMENT_TEXTS = {
    "INVALID_ARGUMENT": re.compile(
        "|".join((*map(re.escape, _CONTRACT_TEXTS), r"Expects arg\[\d+\] to be \w+ but \w+ is provided"))
    ),
    "FAILED_PRECONDITION": re.compile("Serving signature key|different shapes and padding is turned off"),
    "NOT_FOUND": re.compile("Servable not found for request|Could not find (version|any versions)"),
    "UNAUTHENTICATED": re.compile(""),
    "PERMISSION_DENIED": re.compile(""),
}
"""By status: texts of messages for a fault of the deployment, whatever the batch. The empty text is in any message."""

_RELIEFS = (
    (re.compile("OOM when allocating|out of memory", re.IGNORECASE), Relief.SMALLER_MEMORY),
    (re.compile("message larger than max"), Relief.FEWER_BYTES),
    (re.compile(r"\A\Z|Server Threadpool Exhausted"), Relief.FEWER_IN_FLIGHT),
)
"""The relief that a RESOURCE_EXHAUSTED message calls for. An empty message comes from a server without a free
thread."""


def classify(code: str, message: str) -> tuple[Failure, Relief]:
    """Class and relief for a gRPC status name such as ``INVALID_ARGUMENT`` and the message that came with it.

    A code or text that is not known is transient: an unknown fault must never turn events into dead letters. A missing
    servable is a deployment fault: the worker stops sending, reports it, probes by itself and goes on once it appears,
    and the wait never counts against a window as transient failures do.
    """
    if code == "RESOURCE_EXHAUSTED":
        return Failure.TRANSIENT, next((relief for text, relief in _RELIEFS if text.search(message)), Relief.NONE)
    if code in _DEPLOYMENT_TEXTS and _DEPLOYMENT_TEXTS[code].search(message):
        return Failure.DEPLOYMENT, Relief.NONE
    return (Failure.BATCH_FAULT if code == "INVALID_ARGUMENT" else Failure.TRANSIENT), Relief.NONE
