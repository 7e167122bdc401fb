"""Writes the software bill of materials (CycloneDX, JSON) of a release: ``make sbom``.

Made from the files that decide what is installed, and from nothing else, so that the same commit always gives the same
bytes: ``constraints.txt`` has every version, ``requirements.lock`` what of it a worker needs (scope ``required``; the
rest, for export, tests and linters, is ``optional``), ``pyproject.toml`` what Rexstream asks for itself.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def normalized(name: str) -> str:
    """A distribution's name as package URLs have it: ``ml_dtypes`` is ``ml-dtypes``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(file: Path) -> dict[str, str]:
    """Normalized name -> version, of a file with constraints or requirements."""
    return {normalized(name): version for name, version in _PINNED.findall(file.read_text("utf-8"))}


def bill_of_materials(root: Path) -> dict[str, Any]:
    """The document, as JSON has it."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    needed = pinned(root / "requirements.lock")
    versions = dict(sorted((pinned(root / "constraints.txt") | needed).items()))
    urls = {name: f"pkg:pypi/{name}@{version}" for name, version in versions.items()}
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    asked = {normalized(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in project["dependencies"]}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": own,
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": urls[name],
                "name": name,
                "version": version,
                "scope": "required" if name in needed else "optional",
                "purl": urls[name],
            }
            for name, version in versions.items()
        ],
        "dependencies": [{"ref": own, "dependsOn": sorted(urls[name] for name in asked)}],
    }
    # Of the content, so that two documents with one number are the same document.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return {**document, "serialNumber": f"urn:uuid:{number}"}


def main() -> None:
    """Write it to the file that is named, or below ``dist``."""
    document = bill_of_materials(ROOT)
    release = document["metadata"]["component"]
    given = sys.argv[1:] or [str(ROOT / "dist" / f"{release['name']}-{release['version']}.cdx.json")]
    file = Path(given[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{len(document['components'])} components in {file}")


if __name__ == "__main__":
    main()
