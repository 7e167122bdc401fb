"""TensorFlow Serving's gRPC interface on this machine, over the same SavedModels.

For development, demos and tests: it answers calls, refuses them and swaps versions as the real server does (r2.17).
It is kinder in three things: calls beyond four a core are queued, where that one refuses them with RESOURCE_EXHAUSTED;
a broken version ends at once, not after five minutes; and a list of models that waits for a folder is given up with its
caller, and does not hold up all later ones for good. No REST, no server-side batching, no calls with tf.Examples.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog

from consumer.local.catalog import Catalog, Labels, Refusal
from consumer.local.example_calls import (
    CLASSIFY,
    MULTI_INFERENCE,
    REGRESS,
    classify,
    multi_inference,
    multi_inference_spec,
    not_answered,
    regress,
)
from consumer.local.model_folders import ModelSource, VersionPolicy
from consumer.local.predict import predict
from consumer.serving import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from consumer.serving.descriptors import Method


log = structlog.stdlib.get_logger(__name__)

CALLS_PER_CPU = 4
"""Calls that run side by side, as in the real server; more wait."""

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PLATFORM, _TENSORFLOW_TYPE = "tensorflow", 1
"""The platform of every model here, and the number of the deprecated ModelType that means it."""
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class ModelServer:
    """A catalog behind a gRPC port."""

    def __init__(self, catalog: Catalog, *, cpus: int, tensor_content: bool = False) -> None:
        """``tensor_content``: answer with raw bytes, as r2.19 can, instead of typed fields."""
        self._catalog = catalog
        self._tensor_content = tensor_content
        self._stopping = False
        self._look = threading.Event()
        """Set to have the disk looked at now."""
        self._server = grpc.server(
            ThreadPoolExecutor(CALLS_PER_CPU * cpus, thread_name_prefix="call"),
            options=(
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share its calls
            ),
        )
        for method, answer in (
            (descriptors.PREDICT, self._predict),
            (CLASSIFY, self._example_call(classify)),
            (REGRESS, self._example_call(regress)),
            (MULTI_INFERENCE, self._multi_inference),
            (descriptors.GET_MODEL_METADATA, self._metadata),
            (descriptors.GET_MODEL_STATUS, self._status),
            (descriptors.HANDLE_RELOAD_CONFIG, self._reload),
        ):
            service, name = method.path.strip("/").split("/")
            handler = {name: _handler(method, answer)}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handler),))

    def start(
        self, host: str, port: int, poll_seconds: float, credentials: grpc.ServerCredentials | None = None
    ) -> str:
        """Load all models, then open the port and follow the disk. Returns ``host:port`` with the port taken.

        ``credentials``: TLS instead of plaintext.

        Raises Refusal when a model has no version that loads, OSError when the address cannot be bound.
        """
        self._catalog.poll()
        self._catalog.require_available(list(self._catalog.available()))
        try:
            if credentials is None:
                taken = self._server.add_insecure_port(f"{host}:{port}")
            else:
                taken = self._server.add_secure_port(f"{host}:{port}", credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}") from error
        self._server.start()
        threading.Thread(target=self._follow, args=(poll_seconds,), name="model-poll", daemon=True).start()
        return f"{host}:{taken}"

    def stop(self) -> None:
        """Close the port at once, as the real server does: calls in flight fail and are to be repeated elsewhere."""
        self._stopping = True
        self._look.set()
        self._server.stop(grace=None).wait()
        self._catalog.close()  # waits for the poll that is running; what comes after finds no models to load

    def _follow(self, poll_seconds: float) -> None:
        while not self._stopping:
            self._look.wait(poll_seconds)
            self._look.clear()
            self._catalog.poll()

    def _predict(self, request: Any, _: Any) -> Any:
        with self._catalog.use(_spec(request)) as (version, model):
            return predict(model, version, request, as_content=self._tensor_content)

    def _example_call(self, check: Callable[[Mapping[str, Any], Any], None]) -> Callable[[Any, Any], NoReturn]:
        """Classify or Regress, which no exported model answers."""

        def answer(request: Any, _: Any) -> NoReturn:
            with self._catalog.use(_spec(request)) as (_, model):
                check(model.signatures, request)
                raise not_answered()

        return answer

    def _multi_inference(self, request: Any, _: Any) -> NoReturn:
        with self._catalog.use(multi_inference_spec(request)) as (_, model):
            multi_inference(model.signatures, request)
            raise not_answered()

    def _metadata(self, request: Any, _: Any) -> Any:
        spec = _spec(request)
        if not request.metadata_field:
            raise Refusal(_INVALID, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                # The real server does not fill in its own text.
                raise Refusal(_INVALID, f"Metadata field %s is not supported{field}")
        response = descriptors.GET_MODEL_METADATA.response()
        with self._catalog.use(spec) as (version, model):
            response.model_spec.name = spec.name
            response.model_spec.version.value = version
            signatures = descriptors.SignatureDefMap()
            for key, signature in model.signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
            response.metadata["signature_def"].Pack(signatures)
        return response

    def _status(self, request: Any, _: Any) -> Any:
        spec = _spec(request)
        one = spec.HasField("version")
        states = [state for state in self._catalog.states(spec.name) if not one or state[0] == spec.version.value]
        if not states:
            asked = f"version {spec.version.value}" if one else "any versions"
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Could not find {asked} of model {spec.name}")
        response = descriptors.GET_MODEL_STATUS.response()
        for number, state, error in states:
            entry = response.model_version_status.add(version=number, state=int(state))
            entry.status.SetInParent()
            if error is not None:
                entry.status.error_code = error.code.value[0]
                entry.status.error_message = error.message
        return response

    def _reload(self, request: Any, context: Any) -> Any:
        sources, labels = read_config(request.config, self._catalog.listed)
        log.info("new list of models", models=[source.name for source in sources])
        self._catalog.replace(sources, labels, context.is_active)
        self._look.set()
        response = descriptors.HANDLE_RELOAD_CONFIG.response()
        response.status.SetInParent()
        return response


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise Refusal(_INVALID, "Missing ModelSpec")
    return request.model_spec


def _handler(method: Method, answer: Callable[[Any, Any], Any]) -> Any:
    def handle(request: Any, context: Any) -> Any:
        if not context.is_active():
            return method.response()  # its deadline passed while it waited: nobody reads this
        try:
            return answer(request, context)
        except Refusal as refusal:
            context.abort(refusal.code, refusal.message)

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )


def read_config(config: Any, listed: Collection[str] = ()) -> tuple[list[ModelSource], Labels]:
    """Models and version labels of a ModelServerConfig. Raises Refusal for what TensorFlow Serving refuses.

    ``listed`` are the names of the models that are in the list now; all of them are of platform ``tensorflow``.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise Refusal(
            _INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        )
    entries = config.model_config_list.config
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise Refusal(_INVALID, f"Illegal to list model {name} multiple times in config list")
    for entry in entries:
        if not Path(entry.base_path).is_absolute():
            raise Refusal(
                _INVALID,
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}",
            )
    for entry in entries:
        if (platform := _platform(entry)) != _PLATFORM:
            changed = f"platform was {_PLATFORM} and new platform requested is {platform}"
            raise Refusal(
                _INVALID,
                f"Illegal to change a model's platform. For model {entry.name} {changed}"
                if entry.name in listed
                else f"Model {entry.name} requests unsupported platform {platform}",
            )
    sources = [ModelSource(entry.name, Path(entry.base_path), _policy(entry.model_version_policy)) for entry in entries]
    return sources, {entry.name: dict(entry.version_labels) for entry in entries}


def _platform(entry: Any) -> str:
    either = "ModelServerConfig::model_type (deprecated)"
    if not entry.model_type:
        if not entry.model_platform:
            raise Refusal(_INVALID, f"Illegal setting neither {either} nor ModelServerConfig::model_platform.")
        platform: str = entry.model_platform
        return platform
    if entry.model_platform:
        raise Refusal(_INVALID, f"Illegal setting both {either} and ModelServerConfig::model_platform.")
    if entry.model_type != _TENSORFLOW_TYPE:
        raise Refusal(_INVALID, f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
    return _PLATFORM


def _policy(policy: Any) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            return VersionPolicy(specific=frozenset(policy.specific.versions))
        case "latest" if policy.latest.num_versions:
            return VersionPolicy(latest=policy.latest.num_versions)
    return VersionPolicy()


def usable_cpus(quota_file: Path = _CGROUP_QUOTA) -> int:
    """How many CPUs this process may use, which in a container is not how many the machine has.

    The scheduling affinity, cut to the cgroup's quota (version 2: ``<quota> <period>`` or ``max``).
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return min(cpus, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return cpus
