"""TensorFlow Serving's gRPC interface on this machine, over the same SavedModels.

For development, demos and tests: it answers calls, refuses them and swaps versions as the real server does (r2.17), and
queues calls where that one refuses more than four a core with RESOURCE_EXHAUSTED. No REST, no server-side batching.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from consumer.local.catalog import Catalog, Labels, ModelSource, Refusal, VersionPolicy
from consumer.local.predict import predict
from consumer.serving import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.serving.descriptors import Method


log = structlog.stdlib.get_logger(__name__)

CALLS_PER_CPU = 4
"""Calls that run side by side, as in the real server; more wait."""

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class ModelServer:
    """A catalog behind a gRPC port."""

    def __init__(self, catalog: Catalog, *, cpus: int, tensor_content: bool = False) -> None:
        """``tensor_content``: answer with raw bytes, as r2.19 can, instead of typed fields."""
        self._catalog = catalog
        self._tensor_content = tensor_content
        self._stopping = threading.Event()
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
        self._stopping.set()
        self._server.stop(grace=None).wait()
        self._catalog.close()  # waits for the poll that is running; what comes after finds no models to load

    def _follow(self, poll_seconds: float) -> None:
        while not self._stopping.wait(poll_seconds):
            self._catalog.poll()

    def _predict(self, request: Any) -> Any:
        with self._catalog.use(_spec(request)) as (version, model):
            return predict(model, version, request, as_content=self._tensor_content)

    def _metadata(self, request: Any) -> Any:
        spec = _spec(request)
        if not request.metadata_field:
            raise Refusal(_INVALID, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise Refusal(_INVALID, f"Metadata field {field} is not supported")
        response = descriptors.GET_MODEL_METADATA.response()
        with self._catalog.use(spec) as (version, model):
            response.model_spec.name = spec.name
            response.model_spec.version.value = version
            signatures = descriptors.SignatureDefMap()
            for key, signature in model.signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
            response.metadata["signature_def"].Pack(signatures)
        return response

    def _status(self, request: Any) -> Any:
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

    def _reload(self, request: Any) -> Any:
        sources, labels = read_config(request.config)
        log.info("new list of models", models=[source.name for source in sources])
        self._catalog.replace(sources, labels)
        response = descriptors.HANDLE_RELOAD_CONFIG.response()
        response.status.SetInParent()
        return response


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise Refusal(_INVALID, "Missing ModelSpec")
    return request.model_spec


def _handler(method: Method, answer: Callable[[Any], Any]) -> Any:
    def handle(request: Any, context: Any) -> Any:
        if not context.is_active():
            return method.response()  # its deadline passed while it waited: nobody reads this
        try:
            return answer(request)
        except Refusal as refusal:
            context.abort(refusal.code, refusal.message)

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )


def read_config(config: Any) -> tuple[list[ModelSource], Labels]:
    """Models and version labels of a ModelServerConfig. Raises Refusal for what TensorFlow Serving refuses."""
    if config.WhichOneof("config") != "model_config_list":
        raise Refusal(
            _INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        )
    sources: list[ModelSource] = []
    labels: Labels = {}
    for entry in config.model_config_list.config:
        if entry.name in {source.name for source in sources}:
            raise Refusal(_INVALID, f"Illegal to list model {entry.name} multiple times in config list")
        base_path = Path(entry.base_path)
        if not base_path.is_absolute():
            raise Refusal(
                _INVALID,
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}",
            )
        if entry.model_platform != "tensorflow":
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"PlatformConfigMap has no entry for platform {entry.model_platform}",
            )
        sources.append(ModelSource(entry.name, base_path, _policy(entry.model_version_policy)))
        labels[entry.name] = dict(entry.version_labels)
    return sources, labels


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
