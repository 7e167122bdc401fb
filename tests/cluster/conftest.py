"""One cluster for all tests, with nodes and CRDs; each test has a namespace of its own."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.releases import Release
from cluster.tools import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU_NODES = ("cpu-1", "cpu-2")
GPU_NODES = ("gpu-1", "gpu-2", "gpu-3")
_NUMBERS = itertools.count(1)


def _node(name: str) -> dict[str, Any]:
    """A node of KWOK's, with what the chart's tolerations and resources speak of."""
    resources = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    spec = {}
    if name in GPU_NODES:
        resources["nvidia.com/gpu"] = "1"
        spec = {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"allocatable": resources, "capacity": resources},
    }


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with five nodes, and the kinds of KEDA and of the Prometheus Operator."""
    with ControlPlane(tmp_path_factory.mktemp("cluster")) as running:
        running.apply(files=sorted((FILES / "crds").iterdir()))
        nodes = {"apiVersion": "v1", "kind": "List", "items": [_node(name) for name in CPU_NODES + GPU_NODES]}
        done = running.kubectl("create", "-f", "-", stdin=json.dumps(nodes))
        assert done.returncode == 0, done.stderr
        done = running.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")
        assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture
def release(cluster: ControlPlane) -> Iterator[Release]:
    """The chart's release in a namespace of its own, where Pod Security is *restricted*; nothing is installed yet."""
    made = Release(cluster, f"test-{next(_NUMBERS)}")
    made.prepare()
    yield made
    made.remove()
