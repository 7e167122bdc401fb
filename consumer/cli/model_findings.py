"""The checks of the model server that ``rexstream check --connect`` makes: status, signatures, and real windows.

A known-good window alone shows whether bundle and served model belong together. Two of different length at once, many
rows in one call, and a request that only server-side batching refuses in its own words show whether that is off.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError

from consumer.batching.queue import PADDED_LENGTHS, padded_length
from consumer.cli.dependencies import ANSWER_SECONDS, Finding
from consumer.config.proxies import unused_proxy
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits
from consumer.serving import descriptors
from consumer.serving.channels import open_channel, tls_hint
from consumer.serving.client import COMPACT, DENSE, TfServingClient, address, listed
from consumer.serving.errors import of_canary, remedy
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.tensors import ENCODINGS, pad, write_content
from consumer.worker.start_checks import read_bundles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.config.tree import Config, ModelConfig
    from consumer.serving.bundle import Bundle

PREDICT_SECONDS: Final = 20.0
"""Longest wait for a call that runs the model, whose first one of a length may take seconds."""
ROUNDS: Final = 4
"""Pairs of windows that are sent at once: an idle server that batches does not put every pair together."""
ROWS: Final = 64
"""Short windows of one call; a worker sends more. 512 padded tokens of the shortest length, as one long window has."""
_ANSWERS: Final = "model answers"
SHORT, LONG = "好", "屏幕很清晰，就是有点重。" * 8

_SIGNATURES: Final = {
    COMPACT: {"cells": "int32", "scores": "float", "count": "int32", "contract": "int32"},
    DENSE: {"logits": "float", "contract": "int32"},
}
"""Outputs of the signatures that an export has, with their dtypes; half and bfloat16 will do for float."""


def model_findings(config: Config) -> Iterator[Finding]:
    """Whether a worker with this configuration could use the model server. Its bundles have to be readable.

    Of several bundles one has to fit what is served. A canary that does not is only a warning: a worker does without.
    """
    model, canary = config.model, config.model.canary
    bundles, _ = read_bundles(model)
    yield from _of_version(model, bundles, config.batching.max_tokens)
    if canary is not None:
        asked = model.model_copy(update={"label": canary.label, "version": canary.version})
        for finding in _of_version(asked, bundles, config.batching.max_tokens):
            status = "warn" if finding.status == "fail" else finding.status
            yield Finding(f"canary: {finding.subject}", status, of_canary(finding.detail))


def _of_version(model: ModelConfig, bundles: Sequence[Bundle], max_tokens: int) -> Iterator[Finding]:
    """What is found with the first bundle that fits, and which that is; where none does, what is wrong with each."""
    failed: list[Finding] = []
    for bundle in bundles:
        found = asyncio.run(_ModelCheck(model, bundle, max_tokens).findings())
        if found[-1].status != "fail" or found[-1].subject != _ANSWERS:  # with another bundle it would be the same
            yield from found
            if len(bundles) > 1 and found[-1].status != "fail":
                yield Finding("model bundle", "ok", f"{bundle.name} fits; the others wait for a version that they fit")
            return
        failed.append(found[-1])
    yield from dict.fromkeys((*found[:-1], *failed))


class _Fault(Exception):  # noqa: N818 - a finding, not a fault of the program
    """What is wrong, with the way out."""


class _ModelCheck:
    """One run of the checks, each of which raises _Fault or returns what is well."""

    def __init__(self, model: ModelConfig, bundle: Bundle, max_tokens: int) -> None:
        self._model = model
        self._bundle = bundle
        self._rows = min(ROWS, max_tokens // PADDED_LENGTHS[0])
        engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
        self._short, self._long = engine.known_good_window(SHORT), engine.known_good_window(LONG)

    async def findings(self) -> list[Finding]:
        """What was found, in the order in which it was tried; what cannot be tried after a failure is left out."""
        found: list[Finding] = []
        self._channel = open_channel(self._model)
        self._client = TfServingClient(self._model, self._bundle)
        steps = (
            (f"model {self._model.name}", self._status()),
            ("model signatures", self._signatures()),
            (_ANSWERS, self._answers()),
            ("server-side batching", self._batching()),
        )
        try:
            for subject, step in steps:
                if any(finding.status == "fail" for finding in found):
                    step.close()
                    continue
                try:
                    found.append(Finding(subject, "ok", await step))
                except _Fault as fault:
                    found.append(Finding(subject, "fail", f"{self._model.target}: {fault}"))
                except ServingError as error:
                    found.append(Finding(subject, *self._explained(error)))
        finally:
            await self._client.close()
            await self._channel.close()
        return found

    async def _status(self) -> str:
        """Whether the model, and the version if one is configured, is AVAILABLE."""
        try:
            versions = await self._versions(self._model.version)
        except grpc.aio.AioRpcError as error:
            raise await self._no_status(error) from error
        states = {entry.state for entry in versions}
        if descriptors.ModelVersionStatus.AVAILABLE not in states:
            way = "wait until it is loaded"
            if states <= {descriptors.ModelVersionStatus.END}:
                way = "it was unloaded, or does not load: add it to the model server again, or change model.name"
            if self._model.version is not None:
                way += f", or change model.version{await self._others()}"
            raise _Fault(f"{listed(versions)}; {way}")
        return f"{self._model.target}: {listed(versions)}"

    async def _versions(self, version: int | None) -> Sequence[Any]:
        request = descriptors.GET_MODEL_STATUS.request()
        request.model_spec.name = self._model.name
        if version is not None:
            request.model_spec.version.value = version
        response: Any = await self._ask(descriptors.GET_MODEL_STATUS, request)
        return response.model_version_status  # type: ignore[no-any-return]

    async def _others(self) -> str:
        """The versions that are there instead of the one that is configured."""
        try:
            return f" (there is {listed(await self._versions(None))})"
        except grpc.aio.AioRpcError:
            return ""

    async def _no_status(self, error: grpc.aio.AioRpcError) -> _Fault | ServingError:
        code, message = error.code().name, error.details() or ""
        if code == "RESOURCE_EXHAUSTED":
            return _busy(error)
        if code == "DEADLINE_EXCEEDED":
            way = f"no answer within {ANSWER_SECONDS:.0f} s; is this TensorFlow Serving's gRPC port, and does it hang?"
        elif "http1.x" in message:
            way = "an HTTP server answers there, such as the REST API: write the gRPC port into model.target (8500)"
        elif code == "UNIMPLEMENTED":
            way = "this is no TensorFlow Serving; check model.target (its gRPC port is 8500 by default)"
        else:
            way = tls_hint(message, self._model.tls) or remedy(code, message) or "check model.target"
            way += await self._others() if code == "NOT_FOUND" and self._model.version is not None else ""
        if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and (proxy := unused_proxy(os.environ)):
            way += f"; {proxy}"
        return _Fault(f"{code} {message}; {way}")

    async def _signatures(self) -> str:
        """Whether the model has the signatures of an export: ``dense`` is needed only by windows that overflow."""
        request = descriptors.GET_MODEL_METADATA.request(metadata_field=["signature_def"])
        address(request.model_spec, self._model)
        try:
            response = await self._ask(descriptors.GET_MODEL_METADATA, request)
        except grpc.aio.AioRpcError as error:
            code, message = error.code().name, error.details() or ""
            if code == "UNIMPLEMENTED":
                return "not asked: the model server does not tell them"
            if code == "RESOURCE_EXHAUSTED":
                raise _busy(error) from error
            raise _Fault(f"{code} {message}; {remedy(code, message) or 'is the model server healthy?'}") from error
        found = descriptors.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        inputs = dict.fromkeys(pad([self._short], self._short.length, 0), "int32")
        for name, outputs in _SIGNATURES.items():
            if name not in found.signature_def:
                raise _Fault(f"the served model has no signature {name}; serve one that 'rexstream export' wrote")
            signature = found.signature_def[name]
            has_in, has_out = _dtypes(signature.inputs), _dtypes(signature.outputs)
            if has_in != inputs or not outputs.items() <= has_out.items():
                raise _Fault(
                    f"signature {name} of the served model takes {_named(has_in)} and gives {_named(has_out)}, not "
                    f"{_named(inputs)} and {_named(outputs)}; serve a model that 'rexstream export' wrote"
                )
        return f"has {' and '.join(_SIGNATURES)}"

    async def _answers(self) -> str:
        """Whether the model answers a known-good window, with the contract of the bundle."""
        await self._client.ready()  # so that the client knows the version, and names it if this fails
        answer = await self._client.known_good(self._short, PREDICT_SECONDS)
        return f"version {answer.model_version} answers a known-good window, contract {self._bundle.contract}"

    async def _batching(self) -> str:
        """Whether calls are left apart: calls at once, many rows, and rows that do not match."""
        for _ in range(ROUNDS):
            await asyncio.gather(
                *(
                    self._client.predict([window], padded_length(window.length), PREDICT_SECONDS)
                    for window in (self._short, self._long)
                )
            )
        length = padded_length(self._short.length)
        await self._client.predict([self._short] * self._rows, length, PREDICT_SECONDS)
        await self._refused_by_batching(length)
        return (
            f"off: windows of {length} and {padded_length(self._long.length)} tokens at once, {self._rows} in one call"
        )

    async def _refused_by_batching(self, length: int) -> None:
        """Send inputs with unequal numbers of rows. Only server-side batching has words for that of its own."""
        request = descriptors.PREDICT.request()
        address(request.model_spec, self._model)
        request.model_spec.signature_name = COMPACT
        for name, array in pad([self._short], length, self._bundle.tokenizer.pad).items():
            write_content(request.inputs[name], np.repeat(array, 2, axis=0) if name == "length" else array)
        try:
            await self._ask(descriptors.PREDICT, request, PREDICT_SECONDS)
        except grpc.aio.AioRpcError as error:
            message = error.details() or ""
            if "Batching" in message and (way := remedy(error.code().name, message)) is not None:
                raise _Fault(f"{error.code().name} {message}; {way}") from error

    async def _ask(self, method: descriptors.Method, request: Any, timeout: float | None = None) -> Any:
        raw = await self._channel.unary_unary(method.path)(
            request.SerializeToString(), timeout=timeout or ANSWER_SECONDS
        )
        try:
            return method.response.FromString(raw)
        except DecodeError as error:
            raise _Fault(f"the answer to {method.path} is none of TensorFlow Serving's; check model.target") from error

    def _explained(self, error: ServingError) -> tuple[Literal["warn", "fail"], str]:
        """Status and text of the finding for a Predict call that failed."""
        if error.relief is Relief.FEWER_IN_FLIGHT:
            return "warn", f"{self._model.target}: too busy to tell ({error}); check again when it is not"
        text = f"{self._model.target}: {error.code} {error.message.partition(chr(10))[0]}"
        if error.code == "DEADLINE_EXCEEDED":
            text += f"; no answer within {PREDICT_SECONDS:.0f} s: does the model server hang, or lack processors?"
        elif error.failure is Failure.BATCH_FAULT:
            text += (
                "; one known-good window alone was answered: is there a proxy, or another model, behind the address?"
            )
        elif error.failure is Failure.TRANSIENT:
            text += "; the model server does not answer a known-good window: see its log"
        return "fail", text


def _busy(error: grpc.aio.AioRpcError) -> ServingError:
    return ServingError(Failure.TRANSIENT, error.code().name, error.details() or "", Relief.FEWER_IN_FLIGHT)


def _dtypes(tensors: Any) -> dict[str, str]:
    """Aliases and dtypes of a signature's inputs or outputs."""
    names = {alias: ENCODINGS[info.dtype].name for alias, info in tensors.items() if info.dtype in ENCODINGS}
    return {alias: "float" if name in ("half", "bfloat16") else name for alias, name in names.items()}


def _named(tensors: dict[str, str]) -> str:
    return ", ".join(f"{alias} {dtype}" for alias, dtype in sorted(tensors.items())) or "nothing"
