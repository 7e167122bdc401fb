"""What a failed call to TensorFlow Serving means: (status name, message) to class, relief and the way out. Pure.

Called by the clients of a model server; what follows from it is decided in ``dispatch.decisions``.

The texts are those of TensorFlow Serving r2.17 and r2.19. A text is only looked for where its status alone does not
say whether the batch, the load or the deployment is at fault.
"""

from __future__ import annotations

import re

from consumer.serving.protocol import Failure, Relief, ServingError

_EXPORT = "serve a model that 'rexstream export' wrote"
_BATCHING = "server-side batching is on and must be off: start the model server without --enable_batching"

_DEPLOYMENT_FAULTS = {
    "INVALID_ARGUMENT": (
        # Names, counts and dtypes of tensors: the same for every batch, so no event is the cause.
        (r"Signature input alias:|input size does not match signature|Inputs contains invalid name", _EXPORT),
        (r"output tensor alias not found in signature|duplicate output tensor alias", _EXPORT),
        (r"Expects arg\[\d+\] to be \w+ but \w+ is provided", _EXPORT),
        # The address in the request.
        (
            "Unrecognized servable version label",
            "the model server has no such label: give it to a loaded version, or change model.label",
        ),
        ("ModelSpec has no name specified|Missing ModelSpec", "set model.name"),
        # It fails our batches for rows and sizes that are not ours.
        (r"Task size \d+ is larger than max|Batching (session )?Run\(\)", _BATCHING),
    ),
    "FAILED_PRECONDITION": (
        ("Serving signature key", _EXPORT),
        ("padding is turned off|Batched output tensor", _BATCHING),
    ),
    # Calls of others, of other dtypes, met ours.
    "INTERNAL": (("Tensor concat operation failed|does not conform to batch signature", _BATCHING),),
    "NOT_FOUND": (
        (
            r"request: Specific\(|Could not find version",
            "the model server has not that version loaded: load it, give the label another, or change model.version",
        ),
        (
            r"request: Latest\(|Could not find any versions",
            "the model server has no model of that name, or has it no more: add it there, or change model.name",
        ),
    ),
    "UNAUTHENTICATED": (("", "what stands before the model server wants credentials, which Rexstream does not send"),),
    "PERMISSION_DENIED": (("", "what stands before the model server refuses this client"),),
}
"""By status: texts of messages for a fault of the deployment, whatever the batch, and the way out. The empty text is
in any message."""

_RELIEFS = (
    (re.compile("OOM when allocating|out of memory", re.IGNORECASE), Relief.SMALLER_MEMORY),
    (re.compile("message larger than max"), Relief.FEWER_BYTES),
    (re.compile(r"\A\Z|Server Threadpool Exhausted|waiting in batching queue"), Relief.FEWER_IN_FLIGHT),
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
    if code == "UNAVAILABLE" and re.search("batch scheduling queue .*is full", message):
        return Failure.TRANSIENT, Relief.FEWER_IN_FLIGHT
    if remedy(code, message) is not None:
        return Failure.DEPLOYMENT, Relief.NONE
    return (Failure.BATCH_FAULT if code == "INVALID_ARGUMENT" else Failure.TRANSIENT), Relief.NONE


def remedy(code: str, message: str) -> str | None:
    """What to do about a fault of the deployment, in the keys of a worker's configuration; None for any other fault."""
    return next((way for text, way in _DEPLOYMENT_FAULTS.get(code, ()) if re.search(text, message)), None)


def unreached(error: ServingError) -> bool:
    """Whether the call failed before anything was sent: no connection could be opened. It says nothing of its windows.

    What breaks an open connection has another text, such as ``Socket closed``.
    """
    return error.code == "UNAVAILABLE" and "failed to connect to all addresses" in error.message


_BEYOND = re.compile(r"indices\[[\d,]*\] = (\d+) is not in \[0, (\d+)\)")


def refused_index(message: str) -> int | None:
    """The index that a table of the model does not have; None for any other message.

    If it is a token that was sent, the served vocabulary is smaller than the tokenizer's: every window with such a
    token is refused, and none of them is at fault.
    """
    beyond = _BEYOND.search(message)
    return None if beyond is None else int(beyond[1])


def why_refused(message: str) -> str:
    """What it shows that a model refused a window which any model of the bundle answers."""
    if beyond := _BEYOND.search(message):
        return f"the bundle has a token {beyond[1]}, and the served vocabulary only {beyond[2]} tokens"
    return f"the model refuses a known-good window: {message.partition(chr(10))[0]}"


_POINT = "point model.bundle at"


def misfit(bundle: str, served: str, what: str) -> str:
    """The message for a bundle and a served model of different exports; each as it names itself."""
    return (
        f"bundle and served model do not belong together: bundle {bundle} and {served} ({what}); {_POINT} "
        "the bundle folder beside the served version, or serve the version that this bundle was exported with"
    )


def of_canary(message: str) -> str:
    """A message of this module, with the keys of the canary where the way out names those of the stable version."""
    return message.replace("change model.", "change model.canary.").replace(_POINT, "add to model.bundles")
