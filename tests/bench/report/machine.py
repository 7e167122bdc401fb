"""What the figures were measured on: processor, system, versions, commit. Nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from confluent_kafka import libversion

PACKAGES = ("confluent-kafka", "grpcio", "numpy", "protobuf", "tokenizers", "tensorflow-cpu")
ROOT = Path(__file__).parents[3]


def facts() -> dict[str, str]:
    """By what they say, in the order in which the report shows them."""
    found = {
        "commit": _commit(),
        "processor": _first(r"model name\s*: (.*)", "/proc/cpuinfo") or platform.processor() or platform.machine(),
        "CPUs of this process": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Java": _output("java", "-version").splitlines()[0] if shutil.which("java") else "none",
        "librdkafka": libversion()[0],
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def load() -> str:
    """Of the last minute: processes that ran or wanted to, the benchmarks' own among them."""
    return f"{os.getloadavg()[0]:.1f}"


def _commit() -> str:
    commit = _output("git", "-C", str(ROOT), "rev-parse", "HEAD").strip() or "unknown"
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain").strip()
    return f"{commit}, with changes that are not committed" if changed else commit


def _memory() -> str:
    kilobytes = _first(r"MemTotal:\s*(\d+) kB", "/proc/meminfo")
    return f"{int(kilobytes) / 2**20:.1f} GiB" if kilobytes else "unknown"


def _first(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _output(*command: str) -> str:
    """Of both streams (Java writes its version to standard error); empty where there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""
