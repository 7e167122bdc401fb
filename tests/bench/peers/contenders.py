"""Who is measured, and the environments that the peers run in: one each, made on first use, never the product's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT: Final = Path(__file__).parents[3]
PIPELINES: Final = Path(__file__).parent / "pipelines"
ENGINE: Final = PIPELINES / "requirements/engine.txt"
INSTALL_SECONDS: Final = 240.0


class Contender(NamedTuple):
    """A process that reads one topic and writes results to another."""

    name: str
    peer: str | None = None
    """Its pipeline ``with_PEER.py`` and requirements; None for the worker and the loop."""
    order: str = "plain"
    minor: int = 11
    """The oldest Python 3 that its packages run on."""


WORKER: Final = Contender("worker")
EXACTLY_ONCE: Final = Contender("worker, exactly_once")
"""Of the SIGKILLs alone: what the peers are given is at least once."""
LOOP: Final = Contender("loop")
PEERS: Final = (
    Contender("arroyo", "arroyo"),
    Contender("arroyo, sorted", "arroyo", "sorted"),
    Contender("aiokafka", "aiokafka"),
    Contender("aiokafka, sorted", "aiokafka", "sorted"),
    Contender("quixstreams", "quixstreams"),
    Contender("faststream", "faststream"),
    Contender("faust", "faust"),
    Contender("pyrallel-consumer", "pyrallel", minor=12),
    Contender("prosody", "prosody"),
)
QUICK: Final = ("arroyo, sorted", "aiokafka, sorted")
"""The fastest two when all were measured."""


class NotInstalledError(Exception):
    """A peer's environment cannot be made. The message says what was tried and what came of it."""


def install(contenders: Iterable[Contender]) -> dict[str, Path | NotInstalledError]:
    """The Python of each peer's environment, or why there is none. Two are installed at a time."""
    needed = {one.peer: one.minor for one in contenders if one.peer is not None}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(needed, pool.map(_environment, needed, needed.values()), strict=True))


def _environment(peer: str, minor: int) -> Path | NotInstalledError:
    requirements = PIPELINES / "requirements" / f"{peer}.txt"
    mark = hashlib.sha256(b"".join(map(Path.read_bytes, (ENGINE, requirements)))).hexdigest()[:12]
    return environment(ROOT / ".cache/bench/peers" / f"{peer}-{mark}", requirements, minor)


def environment(folder: Path, requirements: Path, minor: int = 11) -> Path | NotInstalledError:
    """The Python of an environment that is made once, for Python 3.``minor`` or later, or why there is none."""
    python = folder / "bin/python"
    done = folder / "installed"
    if done.exists():
        return python
    try:
        _quietly(_interpreter(minor), "-m", "venv", "--clear", str(folder))
        _quietly(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
    except NotInstalledError as error:
        return error
    done.touch()
    return python


def _interpreter(minor: int) -> Path:
    """A Python of at least 3.``minor``: this one, one of the PATH, or one of pyenv's."""
    names = [f"python3.{number}" for number in range(minor, 15)]
    found = [Path(sys.executable)] if sys.version_info >= (3, minor) else []
    found += [Path(path) for name in names if (path := shutil.which(name)) is not None]
    for name in names:
        found += sorted(Path.home().glob(f".pyenv/versions/*/bin/{name}"))
    for python in found:
        try:
            _quietly(python, "-m", "venv", "--help")
        except NotInstalledError:
            continue  # a shim without a version behind it
        return python
    raise NotInstalledError(f"it needs Python 3.{minor} or later, and there is none on this machine")


def _quietly(python: Path, *arguments: str) -> None:
    try:
        subprocess.run(
            [python, *arguments], capture_output=True, text=True, check=True, timeout=INSTALL_SECONDS, cwd=ROOT
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or [f"exit code {error.returncode}"]
        said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
        raise NotInstalledError(f"'python {' '.join(arguments[:3])}': {said[:300]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"'python {' '.join(arguments[:3])}': {str(error)[:300]}") from None
