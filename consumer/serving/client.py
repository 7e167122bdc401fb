"""The client of TensorFlow Serving: batches of windows in, cells out, over grpc.aio."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from consumer.batching.queue import padded_length as round_up
from consumer.config.proxies import unused_proxy
from consumer.serving import descriptors
from consumer.serving.channels import connection_hint, open_channel
from consumer.serving.errors import classify, misfit, refused_index, remedy, why_refused
from consumer.serving.protocol import Answer, Failure, ServingError
from consumer.serving.tensors import GraphContract, bad_answer, compact_cells, dense_cells, pad, write_content

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from consumer.config.tree import ModelConfig
    from consumer.extraction.window import Window
    from consumer.serving.bundle import Bundle

COMPACT = "serving_default"
DENSE = "dense"

MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either way. gRPC's own 4 MB for answers is less than four dense windows of 512 tokens; what is above
this limit is refused before it is read into memory."""

READY_SECONDS = 5.0
"""Timeout of GetModelStatus."""

RENEW_SECONDS = 180.0
"""Calls that were in flight when the connection was replaced may take so long; no call's timeout is longer."""

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # A peer that vanished without a FIN is noticed within 40 s. Servers end connections that ping more often than
    # they allow; two pings without data between them stay below the strikes that any gRPC server counts.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 2),
    # The default waits up to two minutes before it looks for a server that has come back, and 20 s for one connection.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 500),
)

_STATES = descriptors.ModelVersionStatus.State
_AVAILABLE = _STATES.Value("AVAILABLE")


def listed(versions: Sequence[Any]) -> str:
    """ModelVersionStatus messages as ``version 1 END, version 2 AVAILABLE``; each error in brackets."""
    shown = []
    for entry in sorted(versions, key=lambda entry: entry.version):
        why = f" ({entry.status.error_message})" if entry.status.error_code else ""
        shown.append(f"version {entry.version} {_STATES.Name(entry.state)}{why}")
    return ", ".join(shown) or "no version"


def address(spec: Any, model: ModelConfig) -> None:
    """Fill in a ModelSpec: the model's name, and its version or label where one is configured."""
    spec.name = model.name
    if model.version is not None:
        spec.version.value = model.version
    elif model.label is not None:
        spec.version_label = model.label


class TfServingClient:
    """Implements ModelClient. Create it and use it on one event loop.

    The channel connects when first used and again by itself.
    """

    def __init__(self, config: ModelConfig, bundle: Bundle, address: str | None = None) -> None:
        """``address``, ``host:port``: that of one of several servers behind ``model.target``.

        Raises CredentialFileError, a ValueError, for files of ``model.tls`` that cannot be used.
        """
        self._config = config
        self._address = address or config.target
        self._bundle = bundle.name
        self._graph = GraphContract.of(bundle)
        self._connect()
        self._was_ready = False
        self._version = f"version {config.version}" if config.version is not None else f"label {config.label}"
        if config.version is None and config.label is None:
            self._version = "(no version known)"
        self.unready = ""
        """Why the last ``ready`` returned False; empty after True."""

    @property
    def served(self) -> str:
        """The model that is asked, with the version that answered last or else is the newest that is there."""
        return f"model {self._config.name} {self._version} at {self._address}"

    def misfit(self, what: str) -> str:
        """The message for a served model that is not this client's bundle's; ``what`` showed it."""
        return misfit(self._bundle, self.served, what)

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        """Run one batch, padded to ``padded_length`` tokens, within ``timeout`` seconds.

        A window with more cells than the compact signature returns is sent again to the dense one, alone. Raises
        ServingError; ValueError for an empty batch or a window longer than ``padded_length``.
        """
        request = self._request(COMPACT, windows, padded_length)
        started = time.monotonic()
        try:
            response = await self._call(request, timeout)
        except ServingError as error:
            index = refused_index(error.message) if error.failure is Failure.BATCH_FAULT else None
            if index is None or not any((window.input_ids == index).any() for window in windows):
                raise
            raise ServingError(Failure.DEPLOYMENT, error.code, self.misfit(why_refused(error.message))) from error
        version = response.model_spec.version.value
        self._version = f"version {version}"
        try:
            cells, overflowed = compact_cells(response.outputs, windows, self._graph)
        except ServingError as error:
            raise self._named(error) from error
        seconds = time.monotonic() - started
        for index in overflowed:
            left = timeout - (time.monotonic() - started)
            length = round_up(windows[index].length)
            repeated = await self._call(self._request(DENSE, [windows[index]], length), left)
            if repeated.model_spec.version.value != version:
                # One answer never mixes two versions.
                raise ServingError(
                    Failure.TRANSIENT,
                    "ABORTED",
                    f"model {self._config.name} changed from version {version} to {repeated.model_spec.version.value} "
                    "between a batch and the repeat of a window that overflowed; the batch is to be sent again",
                )
            try:
                cells[index] = dense_cells(repeated.outputs, windows[index], length, self._graph)
            except ServingError as error:
                raise self._named(error) from error
        return Answer(tuple(cells), self._config.name, str(version), COMPACT, seconds, tuple(overflowed))

    async def known_good(self, window: Window, timeout: float) -> Answer:
        """Ask a window that every model of this bundle answers, alone.

        Raises ServingError as ``predict``, and never BATCH_FAULT: a model that refuses it is not this bundle's.
        """
        try:
            return await self.predict([window], round_up(window.length), timeout)
        except ServingError as error:
            if error.failure is not Failure.BATCH_FAULT:
                raise
            what = self.misfit(why_refused(error.message))
            raise ServingError(Failure.DEPLOYMENT, error.code, what) from error

    async def ready(self) -> bool:
        """Whether the configured version (any version, if none or a label is configured) is AVAILABLE.

        When the server is too busy to answer, the last answer is returned again. Never raises for an unreachable
        server.
        """
        request = descriptors.GET_MODEL_STATUS.request()
        request.model_spec.name = self._config.name
        if self._config.version is not None:
            request.model_spec.version.value = self._config.version
        try:
            raw = await self._status(request.SerializeToString(), timeout=READY_SECONDS)
            versions = descriptors.GET_MODEL_STATUS.response.FromString(raw).model_version_status
        except grpc.aio.AioRpcError as error:
            unready = f"{error.code().name}: {self._message(error)}"
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and (proxy := unused_proxy(os.environ)):
                unready += f"; {proxy}"  # it is not reached, perhaps: a server that is busy answers this
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._was_ready = False
        except DecodeError:
            unready = "the answer is no GetModelStatusResponse"
            self._was_ready = False
        else:
            available = [entry.version for entry in versions if entry.state == _AVAILABLE]
            self._was_ready = bool(available)
            if available and self._config.label is None:
                self._version = f"version {max(available)}"
            unready = f"the model server has {listed(versions)} of it; load one, or wait until it is loaded"
        self.unready = "" if self._was_ready else unready
        return self._was_ready

    async def loaded(self) -> str:
        """All versions that the server has of the model, as ``listed``; empty where it does not tell."""
        request = descriptors.GET_MODEL_STATUS.request()
        request.model_spec.name = self._config.name
        try:
            raw = await self._status(request.SerializeToString(), timeout=READY_SECONDS)
            return listed(descriptors.GET_MODEL_STATUS.response.FromString(raw).model_version_status)
        except (grpc.aio.AioRpcError, DecodeError):
            return ""

    def renew(self) -> Coroutine[Any, Any, None]:
        """Read the files of ``model.tls`` again: new calls use them, on a connection of their own.

        Returns what is to be awaited: the end of the calls that are in flight, and of their connection. Raises
        CredentialFileError when the files cannot be used; everything goes on as before then.
        """
        before = self._channel
        self._connect()
        ended: Coroutine[Any, Any, None] = before.close(RENEW_SECONDS)
        return ended

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()

    def _connect(self) -> None:
        self._channel = open_channel(self._config, _CHANNEL_OPTIONS, self._address)
        self._predict = self._channel.unary_unary(descriptors.PREDICT.path)
        self._status = self._channel.unary_unary(descriptors.GET_MODEL_STATUS.path)

    def _request(self, signature: str, windows: Sequence[Window], padded_length: int) -> bytes:
        request = descriptors.PREDICT.request()
        address(request.model_spec, self._config)
        request.model_spec.signature_name = signature
        for name, array in pad(windows, padded_length, self._graph.pad).items():
            write_content(request.inputs[name], array)
        content: bytes = request.SerializeToString()
        return content

    def _message(self, error: grpc.aio.AioRpcError) -> str:
        """The message of a failed call, and what to do if it is about the connection or the deployment."""
        message = error.details() or ""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            hint = connection_hint(message, self._config.tls)
        else:
            hint = remedy(error.code().name, message)
        return message if hint is None else f"{message}; {hint}"

    def _named(self, error: ServingError) -> ServingError:
        """The failure of an answer, with the names of bundle and model where they do not belong together."""
        if error.code != "CONTRACT":
            return error
        return ServingError(error.failure, error.code, self.misfit(error.message))

    async def _call(self, request: bytes, timeout: float) -> Any:
        try:
            # A deadline that has passed is the server's to report: gRPC refuses it without sending anything.
            raw = await self._predict(request, timeout=max(timeout, 0.0))
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            failure, relief = classify(code, error.details() or "")
            raise ServingError(failure, code, self._message(error), relief) from error
        try:
            return descriptors.PREDICT.response.FromString(raw)
        except DecodeError as error:
            raise bad_answer("the answer is no PredictResponse") from error
