"""Other releases of Rexstream, to run beside this one: their code out of git, each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from chaos.scenario import Skipped

ROOT = Path(__file__).resolve().parents[2]

OLD = "284902745a16215eceeaec1507bf4ce48d0a9d21"
"""The release that today's has to live with in one group. It has no version of its own: a commit that was landed."""


def command(commit: str, root: Path = ROOT) -> tuple[str, ...]:
    """The ``rexstream`` of ``commit``, made once in ``.cache/releases`` (a minute or so) and kept.

    From the tree of that commit and the versions of its constraints.txt, so that its librdkafka is the one that it was
    tested with. Raises Skipped where the history, or a package of it, cannot be had.
    """
    folder = root / ".cache" / "releases" / commit[:12]
    program = (str(folder / ".venv" / "bin" / "rexstream"),)
    if (folder / ".done").exists():
        return program
    git = shutil.which("git")
    if git is None or _run([git, "-C", str(root), "cat-file", "-e", f"{commit}^{{commit}}"]) is not None:
        raise Skipped(f"the code of {commit[:12]} is not in this checkout: that needs git and a whole clone")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tree = folder / "tree.tar"
    # No worktree: git would go on to know of it when .cache is deleted.
    if (why := _run([git, "-C", str(root), "archive", "--output", str(tree), commit])) is not None:
        raise Skipped(f"the code of {commit[:12]} cannot be read: {why}")
    with tarfile.open(tree) as archive:
        archive.extractall(folder, filter="data")
    tree.unlink()
    python = folder / ".venv" / "bin" / "python"
    if uv := shutil.which("uv"):
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(folder / ".venv")]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        make = [sys.executable, "-m", "venv", str(folder / ".venv")]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for step in (make, [*install, "-c", str(folder / "constraints.txt"), str(folder)]):
        if (why := _run(step)) is not None:
            raise Skipped(f"{commit[:12]} cannot be installed: {why}")
    (folder / ".done").touch()
    return program


def _run(arguments: list[str]) -> str | None:
    """None if it went well, else the last line of what it said."""
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
