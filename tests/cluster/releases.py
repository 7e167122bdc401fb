"""A release of the chart in a namespace of a real API server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from deploy.chart import CHART, ROOT

if TYPE_CHECKING:
    from cluster.control_plane import ControlPlane

VOLUME = ROOT / "deploy" / "kubernetes" / "model-volume.yaml"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
"""What makes the API server refuse a pod, and warn of a Deployment whose pods it would refuse."""
WARNING = re.compile(r"(?m)^(?:W\d{4} .*|(?:Warning|level=WARN).*|.*would violate PodSecurity.*)$")


class Release:
    """Named rexstream, as in the documents."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def prepare(self) -> None:
        """The namespace, and the volume for models as deploy/README.md has it, with storage behind it."""
        metadata = {"name": self.namespace, "labels": RESTRICTED}
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        storage = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteMany"],
            "claimRef": {"namespace": self.namespace, "name": "rexstream-models"},
            "nfs": {"server": "storage.example", "path": "/"},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.namespace}, "spec": storage}
        self.cluster.apply(volume)
        warnings = self.cluster.apply(files=[VOLUME], namespace=self.namespace)
        assert not WARNING.findall(warnings), warnings

    def install(self, values: str = "", *arguments: str) -> None:
        """``helm upgrade --install --wait``. Raises AssertionError when it fails, or when the API server warns."""
        command = ("upgrade", "--install", "rexstream", str(CHART), f"--namespace={self.namespace}", "--values=-")
        said = self.cluster.helm(*command, "--wait", "--wait-for-jobs", "--timeout=3m", *arguments, values=values)
        assert not WARNING.findall(said), said

    def rollback(self) -> None:
        """To the release before."""
        said = self.cluster.helm("rollback", "rexstream", f"--namespace={self.namespace}", "--wait", "--timeout=3m")
        assert not WARNING.findall(said), said

    def roll_out(self, workload: str) -> None:
        """Wait for the last old pod to be gone; ``helm --wait`` returns when the new ones are ready."""
        done = self.kubectl("rollout", "status", workload, "--timeout=90s")
        assert done.returncode == 0, done.stderr

    def remove(self) -> None:
        """The namespace; it goes away later, but no pod of it is on a node when this returns."""
        self.kubectl("delete", "deployments,statefulsets,jobs,pods", "--all", "--timeout=60s")
        # Without KEDA nobody takes its finalizer off.
        self.kubectl("patch", "scaledobjects.keda.sh", "--all", "--type=merge", '-p={"metadata":{"finalizers":null}}')
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")
        self.kubectl("delete", "persistentvolume", self.namespace, "--wait=false")

    def kubectl(self, *arguments: str, stdin: str = "") -> Any:
        """A kubectl command in this namespace, which may fail."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, stdin=stdin)

    def objects(self, path: str) -> dict[str, Any]:
        """Objects of a kind by name, such as ``apps/v1 deployments``."""
        group, kind = path.split()
        root = "/api/v1" if group == "v1" else f"/apis/{group}"
        found = self.cluster.get(f"{root}/namespaces/{self.namespace}/{kind}")["items"]
        return {each["metadata"]["name"]: each for each in found}

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of ``worker``, ``model`` or ``topics`` that nobody has asked to go."""
        return [
            pod
            for pod in self.objects("v1 pods").values()
            if pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") == component
            and "deletionTimestamp" not in pod["metadata"]
        ]
