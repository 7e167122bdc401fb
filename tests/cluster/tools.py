"""Put a Kubernetes control plane, KWOK and KEDA into .cache/cluster: built once from their Go modules, by version.

Run by ``make cluster``: about 20 minutes of processor and 6 GB of disk the first time, of which 0.8 GB stay. A
program that cannot be built is named, with the reason, and the exit code is 1; what was built before is kept.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.tools import KEDA, PROMETHEUS_OPERATOR, fetch, go, module

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "cluster"
BIN = CACHE / "bin"
FILES = CACHE / "files"
"""Manifests of KWOK, KEDA and the Prometheus Operator, as their modules have them."""

KUBERNETES = "1.34.4"
KUBERNETES_MODULE = f"k8s.io/kubernetes@v{KUBERNETES}"
ETCD = "go.etcd.io/etcd/server/v3@v3.6.16"
KWOK = "sigs.k8s.io/kwok@v0.8.0"
SCALERS = ("scaler", "kafka_scaler", "prometheus_scaler", "cpu_memory_scaler", "azure_queue_scaler")
"""Files of KEDA's that are compiled; a constant of the one for Prometheus is in the one for Azure's queues."""
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


def program(name: str) -> str:
    """Path of a program that was built. Raises FileNotFoundError."""
    path = BIN / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: make cluster builds it")
    return str(path)


def _build(name: str, packages: dict[str, str], release: str, stamp: str = "") -> None:
    """Build programs (their names by package) inside a module that is no one's dependency.

    Such a module replaces others by folders that are beside it in its repository, and not here: they are the published
    modules of ``release``. That is why ``go install`` refuses it. ``stamp``: flags for the linker.
    """
    source = module(CACHE, name)
    own = CACHE / "modules" / name.partition("@")[0].replace("/", "_")
    own.mkdir(parents=True, exist_ok=True)
    for file in ("go.mod", "go.sum"):
        (own / file).write_bytes((source / file).read_bytes())
    requirements = (own / "go.mod").read_text(encoding="utf-8")
    replaced = re.sub(r"(?m)^(\t(\S+)) => \.\S+$", rf"\1 => \2 {release}", requirements)
    (own / "go.mod").write_text(replaced, encoding="utf-8")
    for package, target in packages.items():
        sys.stderr.write(f"cluster:   {target} ...\n")
        go(
            CACHE,
            *("build", "-mod=mod", f"-modfile={own / 'go.mod'}", f"-ldflags=-s -w{stamp}", "-o", str(BIN / target)),
            package,
            cwd=source,
        )


def _kubernetes() -> None:
    major, minor, patch = KUBERNETES.split(".")
    # Without it the server says v0.0.0, and charts that ask for a version are refused.
    variables = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    stamp = "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in variables.items())
    _build(KUBERNETES_MODULE, {f"./cmd/{each}": each for each in PROGRAMS}, f"v0.{minor}.{patch}", stamp)


def _kwok() -> None:
    go(CACHE, "install", "-ldflags=-s -w", KWOK.replace("@", "/cmd/kwok@"))
    stages = module(CACHE, KWOK) / "kustomize" / "stage"
    found = [*stages.glob("node/fast/node-*.yaml"), *stages.glob("node/heartbeat/node-*.yaml")]
    found += stages.glob("pod/fast/pod-*.yaml")
    _keep("stages", found)


def _keda() -> None:
    """Operator and adapter with the scalers that the chart uses.

    The 70 others are clients of clouds and databases, half of what there would be to compile; nothing else is changed.
    """
    source = CACHE / "modules" / "keda"
    shutil.rmtree(source, ignore_errors=True)
    # Files of a module are read-only.
    shutil.copytree(module(CACHE, KEDA), source, copy_function=shutil.copyfile)
    code = ""
    for path in sorted((source / "pkg" / "scalers").glob("*.go")):
        if path.stem in SCALERS:
            code += path.read_text(encoding="utf-8")
        else:
            path.unlink()
    builder = source / "pkg" / "scaling" / "scalers_builder.go"
    before, cases, after = re.split(r"(// TRIGGERS-(?:START|END))", builder.read_text(encoding="utf-8"))[::2]
    kept = [
        case
        for case in re.split(r"(?m)^(?=\tcase |\tdefault:)", cases)
        if all(f"func {constructor}(" in code for constructor in re.findall(r"scalers\.(New\w+)", case))
    ]
    builder.write_text(before + "".join(kept) + after, encoding="utf-8")
    # Most of what is left is not worth the time that optimising it takes.
    names = ["github.com", "cloud.google.com", "google.golang.org", "k8s.io", "sigs.k8s.io", "go.opentelemetry.io"]
    options = [f"-gcflags={name}/...=-N -l" for name in names]
    for command in ("adapter", "operator"):
        target = f"keda-{command}"
        sys.stderr.write(f"cluster:   {target} ...\n")
        go(
            CACHE,
            *("build", "-mod=mod", "-ldflags=-s -w", "-o", str(BIN / target), *options, f"./cmd/{command}"),
            cwd=source,
        )


def _manifests() -> None:
    keda = module(CACHE, KEDA)
    operator = module(CACHE, PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
    monitoring = [operator / f"monitoring.coreos.com_{kind}.yaml" for kind in ("podmonitors", "prometheusrules")]
    _keep("crds", [*keda.glob("config/crd/bases/*.yaml"), *monitoring])
    _keep("keda", [*keda.glob("config/metrics-server/role*.yaml")])


def _keep(folder: str, found: list[Path]) -> None:
    target = FILES / folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in found:
        (target / path.name).write_bytes(path.read_bytes())


STEPS: dict[str, Callable[[], None]] = {
    f"{KUBERNETES_MODULE} (12 minutes of processor)": _kubernetes,
    ETCD: lambda: _build(ETCD, {".": "etcd"}, f"v{ETCD.rpartition('@v')[2]}"),
    KWOK: _kwok,
    f"manifests of {KEDA} and {PROMETHEUS_OPERATOR}": _manifests,
    f"{KEDA} (6 minutes of processor)": _keda,
}


if __name__ == "__main__":
    sys.exit(fetch("cluster", CACHE, STEPS))
