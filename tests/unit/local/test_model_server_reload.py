"""Configuration messages to lists of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from consumer.local.catalog import Refusal
from consumer.local.model_folders import ModelSource, VersionPolicy
from consumer.local.model_server import read_config
from consumer.serving.descriptors import HANDLE_RELOAD_CONFIG


def config(**entry: Any) -> Any:
    """A ModelServerConfig with one model."""
    request = HANDLE_RELOAD_CONFIG.request()
    settings = {"name": "demo", "base_path": "/models/demo", "model_platform": "tensorflow", **entry}
    request.config.model_config_list.config.add(**settings)
    return request.config


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, VersionPolicy()),
        ({"latest": {}}, VersionPolicy()),
        ({"latest": {"num_versions": 2}}, VersionPolicy(latest=2)),
        ({"all": {}}, VersionPolicy(latest=None)),
        ({"specific": {"versions": [3, 5]}}, VersionPolicy(specific=frozenset((3, 5)))),
    ],
)
def test_the_version_policy_is_read(policy: dict[str, Any], expected: VersionPolicy) -> None:
    """Latest one by default, latest so many, all, or exactly these."""
    sources, labels = read_config(config(model_version_policy=policy, version_labels={"canary": 3}))
    assert sources == [ModelSource("demo", Path("/models/demo"), expected)]
    assert labels == {"demo": {"canary": 3}}


def twice() -> Any:
    message = config()
    message.model_config_list.config.add().CopyFrom(message.model_config_list.config[0])
    return message


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (HANDLE_RELOAD_CONFIG.request().config, "INVALID_ARGUMENT", "Only ModelConfigList is currently supported"),
        (twice(), "INVALID_ARGUMENT", "Illegal to list model demo multiple times"),
        (config(base_path="models/demo"), "INVALID_ARGUMENT", r"absolute path or URI; got base_path\(\)=models/demo"),
        (config(model_platform="onnx"), "INVALID_ARGUMENT", "Model demo requests unsupported platform onnx"),
        (config(model_platform=""), "INVALID_ARGUMENT", "Illegal setting neither .* nor .*model_platform."),
        (config(model_type=1), "INVALID_ARGUMENT", "Illegal setting both .* and .*model_platform."),
        (config(model_platform="", model_type=2), "INVALID_ARGUMENT", "model_type choice 2 not supported"),
    ],
)
def test_what_the_real_server_refuses_is_refused(message: Any, code: str, text: str) -> None:
    """A list that cannot be meant is refused as a whole."""
    with pytest.raises(Refusal, match=text) as caught:
        read_config(message)
    assert caught.value.code is grpc.StatusCode[code]


def test_a_model_keeps_its_platform() -> None:
    """Of a model that is in the list; the deprecated type means the same platform."""
    with pytest.raises(Refusal, match="For model demo platform was tensorflow and new platform requested is onnx"):
        read_config(config(model_platform="onnx"), {"demo"})
    assert read_config(config(model_platform="", model_type=1), {"demo"})[0][0].name == "demo"
