"""A ModelServerConfig message to the list of models that it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from consumer.local.refusal import Refusal
from consumer.local.versions import ModelSource, VersionPolicy

if TYPE_CHECKING:
    from consumer.local.catalog import Labels

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


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
