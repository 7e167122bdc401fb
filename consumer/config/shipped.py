"""Where the files that ship with the package are: task files, Avro schemas, the demo model."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = {"schemas": "_schemas", "deploy/demo-model": "_demo_model"}
"""Folder in a checkout -> folder inside the installed package (the wheel's force-include)."""


def shipped(relative: str, package: Path = _PACKAGE) -> Path:
    """Path of a shipped file or folder, named as in a checkout: ``schemas/tasks``, ``deploy/demo-model/config.json``.

    ``package`` is the folder of the ``consumer`` package. The installed copy is looked for first: beside an installed
    package, a folder called ``schemas`` may be anybody's. Raises FileNotFoundError with both places.
    """
    tried = [
        package / installed / relative[len(folder) + 1 :]
        for folder, installed in _INSTALLED.items()
        if relative == folder or relative.startswith(folder + "/")
    ]
    tried.append(package.parent / relative)
    if found := next((path for path in tried if path.exists()), None):
        return found
    raise FileNotFoundError(
        f"{relative} is not shipped: looked for {' and '.join(map(str, tried))}; reinstall rexstream"
    )
