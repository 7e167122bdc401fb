"""A Kubernetes control plane on loopback and free ports, and KWOK, which plays the kubelets of its nodes."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

import yaml
from certificates import Authority
from cluster.processes import Process
from cluster.tools import FILES, program
from deploy.tools import free_port, tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

TOKEN = "admin"
"""Of a member of system:masters; all of it is reachable from this machine only, and gone with the test."""
HPA_SYNC_SECONDS = 5
"""How often the autoscaler of pods asks for metrics; in a cluster it is 15."""


class ControlPlane:
    """A context manager: everything has ended after its block, and with the thread that entered it."""

    processes = "scaling"
    """The namespace whose pods have processes, and are deleted by whoever runs those; KWOK deletes others at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.kubeconfig = folder / "kubeconfig.yaml"
        self._url = f"https://127.0.0.1:{free_port()}"
        self._processes: list[Process] = []
        trust = ssl.create_default_context(cadata=self.authority.pem.decode())
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.end()

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """One more program that was built, which ends with the others."""
        process = Process(self.folder / f"{name}.log", program(name), *arguments, environment=environment)
        self._processes.append(process)
        return process

    def certificate(self, name: str, *sans: str) -> tuple[Path, Path]:
        """Files with a certificate of this cluster's authority and its key."""
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        for file, content in zip(files, self.authority.issue(name, sans or ("localhost", "127.0.0.1")), strict=True):
            file.write_bytes(content)
        return files

    def get(self, path: str) -> Any:
        """The object or list at a path of the API, such as ``/api/v1/nodes``. Raises OSError."""
        request = urllib.request.Request(self._url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with self._opener.open(request, timeout=10) as response:
            return json.loads(response.read() or b"null")

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What kubectl does, which may fail."""
        command = [program("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)

    def apply(self, *manifests: dict[str, Any], files: Iterable[Path] = (), namespace: str = "") -> str:
        """Create objects or change them, server-side. Raises AssertionError with what the API server says."""
        text = yaml.safe_dump_all(manifests)
        text += "".join(f"\n---\n{file.read_text('utf-8')}" for file in files)
        own = (f"--namespace={namespace}",) if namespace else ()
        done = self.kubectl("apply", "--server-side", "--force-conflicts", *own, "-f", "-", stdin=text)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def helm(self, *arguments: str, values: str = "") -> str:
        """Standard error of Helm, which the API server's warnings are in. Raises AssertionError when it fails."""
        command = [tool("helm"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=values, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stderr

    def _start(self) -> None:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        etcd = [f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=error"]
        etcd += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        etcd += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        etcd += [f"--initial-cluster=default={peer}"]
        self.start("etcd", *etcd)
        self._write_kubeconfig()
        self.start("kube-apiserver", f"--etcd-servers={client}", *self._api_server()).until(self._ready, 120)
        own = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1")
        self.start(
            "kube-controller-manager",
            *own,
            f"--secure-port={free_port()}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.folder / 'ca.crt'}",
            f"--horizontal-pod-autoscaler-sync-period={HPA_SYNC_SECONDS}s",
        )
        self.start("kube-scheduler", *own, f"--secure-port={free_port()}")
        self.start("kwok", f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes=true", f"--config={self._stages()}")

    def _stages(self) -> Path:
        """KWOK's own stages, except that it deletes no pods that have processes."""
        stages = [yaml.safe_load(file.read_text("utf-8")) for file in sorted((FILES / "stages").iterdir())]
        (delete,) = [stage for stage in stages if stage["metadata"]["name"] == "pod-delete"]
        owned = {"key": f'.metadata.namespace | select(. == "{self.processes}")', "operator": "DoesNotExist"}
        delete["spec"]["selector"]["matchExpressions"].append(owned)
        path = self.folder / "stages.yaml"
        path.write_text(yaml.safe_dump_all(stages), encoding="utf-8")
        return path

    def _write_kubeconfig(self) -> None:
        (self.folder / "ca.crt").write_bytes(self.authority.pem)
        cluster = {"server": self._url, "certificate-authority": str(self.folder / "ca.crt")}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(content), encoding="utf-8")

    def _api_server(self) -> Sequence[str]:
        serving, serving_key = self.certificate("api-server", "localhost", "127.0.0.1")
        proxy, proxy_key = self.certificate("aggregator")
        accounts, accounts_key = self.certificate("accounts")
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f"{TOKEN},admin,admin,system:masters\n", encoding="utf-8")
        ca = self.folder / "ca.crt"
        return (
            "--bind-address=127.0.0.1",
            f"--secure-port={self._url.rpartition(':')[2]}",
            # Nobody finds it by its Service, and loopback cannot be advertised there.
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder}",
            f"--tls-cert-file={serving}",
            f"--tls-private-key-file={serving_key}",
            f"--client-ca-file={ca}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts_key}",
            # How it asks KEDA's adapter for metrics.
            f"--proxy-client-cert-file={proxy}",
            f"--proxy-client-key-file={proxy_key}",
            f"--requestheader-client-ca-file={ca}",
            "--requestheader-allowed-names=aggregator",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        )

    def _ready(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz").returncode == 0
        except OSError:
            return False
