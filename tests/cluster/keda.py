"""The real KEDA: its operator, which scales, and its adapter, through which the autoscaler of pods asks for metrics."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from cluster.tools import FILES
from deploy.tools import free_port

if TYPE_CHECKING:
    from cluster.control_plane import ControlPlane

NAMESPACE = "keda"
SERVICE = "keda-metrics-apiserver"
METRICS = "v1beta1.external.metrics.k8s.io"


def start_keda(cluster: ControlPlane) -> None:
    """Start both beside the control plane, with which they end, and return when the API server reaches the adapter.

    They are processes of this machine and no pods, so that their Service is a name: localhost.
    """
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.apply(files=sorted((FILES / "keda").iterdir()))
    folder = cluster.folder / "keda"
    folder.mkdir()
    content = cluster.authority.issue("keda", ("localhost", "127.0.0.1", f"{SERVICE}.{NAMESPACE}.svc"))
    for name, pem in zip(("tls.crt", "tls.key", "ca.crt"), (*content, cluster.authority.pem), strict=True):
        (folder / name).write_bytes(pem)
    service, port = free_port(), free_port()
    own = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "POD_NAMESPACE": NAMESPACE,
        "WATCH_NAMESPACE": "",
        "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
    }
    operator = cluster.start(
        "keda-operator",
        f"--metrics-service-bind-address=127.0.0.1:{service}",
        f"--metrics-bind-address=127.0.0.1:{free_port()}",
        f"--health-probe-bind-address=127.0.0.1:{free_port()}",
        f"--cert-dir={folder}",
        "--zap-log-level=info",
        environment=own,
    )
    adapter = cluster.start(
        "keda-adapter",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--port={free_port()}",
        f"--metrics-service-address=localhost:{service}",
        f"--cert-dir={folder}",
        f"--tls-cert-file={folder / 'tls.crt'}",
        f"--tls-private-key-file={folder / 'tls.key'}",
        f"--client-ca-file={folder / 'ca.crt'}",
        *(f"--{each}-kubeconfig={cluster.kubeconfig}" for each in ("authentication", "authorization", "lister")),
        environment=own,
    )
    cluster.apply(*_objects(port, cluster.authority.pem))
    for process in (adapter, operator):
        process.until(lambda: _available(cluster))


def _objects(port: int, authority: bytes) -> list[dict[str, Any]]:
    named = {"name": SERVICE, "namespace": NAMESPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": named,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": METRICS},
            "spec": {
                "service": {**named, "port": port},
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": base64.b64encode(authority).decode(),
            },
        },
    ]


def _available(cluster: ControlPlane) -> bool:
    found = cluster.get(f"/apis/apiregistration.k8s.io/v1/apiservices/{METRICS}")
    conditions = found.get("status", {}).get("conditions", [])
    return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)
