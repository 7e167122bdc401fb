"""What is installed: pinned, with hashes where the image is built, and listed in a bill of materials."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from house.sbom import bill_of_materials, normalized, pinned
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = pinned(ROOT / "constraints.txt")
LOCKS = ("requirements.lock", "requirements-otel.lock", "requirements-build.lock")


def needed_by(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Distributions that one needs on this machine, with all that those need."""
    found: set[str] = set()
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        for line in requires(each[0]) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *each[1])):
                found.add(normalized(requirement.name))
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pinned_package_has_hashes_and_no_address(lock: str) -> None:
    """As pip's --require-hashes wants it, and from whatever index the builder uses."""
    text = (ROOT / lock).read_text("utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ ", entry), entry
        assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}(?= \\\n|\n|$)", entry)) >= 1, entry
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_have_the_versions_that_the_tests_pass_with(lock: str) -> None:
    """After a change of constraints.txt or pyproject.toml: make lock."""
    found = pinned(ROOT / lock)
    assert found == {name: CONSTRAINTS.get(name) for name in found}


def test_the_lock_is_all_that_a_worker_needs_and_no_more() -> None:
    """Compared with what the installed distributions themselves ask for."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    needed = set()
    for line in asked:
        requirement = Requirement(line)
        needed |= {normalized(requirement.name)} | needed_by(requirement.name, frozenset(requirement.extras))
    assert "confluent-kafka" in needed
    locked = set(pinned(ROOT / "requirements.lock"))
    assert needed <= locked
    for name in sorted(locked - needed):
        # What only another machine needs is named with the condition.
        entry = re.search(rf"^{name}==.*", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
        assert entry is not None
        assert not Requirement(entry[0].rstrip(" \\")).marker.evaluate(), name  # type: ignore[union-attr]


def test_the_lock_with_opentelemetry_is_the_other_one_and_what_that_needs() -> None:
    """Nothing else changes in an image with traces; over gRPC they need no library of a third party more."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["otel"]
    needed = {normalized(Requirement(line).name) for line in extra}
    for name in tuple(needed):
        needed |= needed_by(name)
    plain, traced = (pinned(ROOT / lock) for lock in LOCKS[:2])
    assert plain.items() <= traced.items()
    added = traced.keys() - plain.keys()
    assert added == needed - plain.keys()
    assert all(name.startswith(("opentelemetry-", "googleapis-")) for name in added), added


def test_the_image_installs_nothing_without_a_hash() -> None:
    """Every pip install in the Dockerfile wants hashes, or installs only what was built there."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    installs = re.findall(r"pip[^&\n]* install [^&\n]*", text)
    assert len(installs) == 3
    for command in installs:
        hashed = "--require-hashes --only-binary :all:" in command
        assert hashed or re.search(r"--no-deps (--no-build-isolation )?/wheels/", command), command


def test_the_bill_of_materials_lists_everything_once() -> None:
    """Every constraint is a component with its version; what a worker needs is marked; references lead somewhere."""
    bill = bill_of_materials(ROOT)
    components = {component["name"]: component for component in bill["components"]}
    assert {name: component["version"] for name, component in components.items()} == CONSTRAINTS
    assert len(components) == len(bill["components"])
    locked = set(pinned(ROOT / "requirements.lock"))
    assert {name for name, component in components.items() if component["scope"] == "required"} == locked
    for component in (bill["metadata"]["component"], *bill["components"]):
        assert component["purl"] == component["bom-ref"] == f"pkg:pypi/{component['name']}@{component['version']}"
    references = {component["bom-ref"] for component in bill["components"]}
    (own,) = bill["dependencies"]
    assert own["ref"] == bill["metadata"]["component"]["bom-ref"]
    assert set(own["dependsOn"]) <= references
    assert len(own["dependsOn"]) >= 12
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")


def test_the_bill_of_materials_is_the_same_each_time(tmp_path: Path) -> None:
    """Byte by byte, and without an address or a path of the machine it was made on."""
    texts = []
    for name in ("a", "b"):
        program = [sys.executable, "-m", "house.sbom", str(tmp_path / name / "sbom.json")]
        subprocess.run(program, check=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "tests")}, timeout=60)
        texts.append((tmp_path / name / "sbom.json").read_bytes())
    assert texts[0] == texts[1]
    text = texts[0].decode()
    assert json.loads(text)["serialNumber"].startswith("urn:uuid:")
    assert "://" not in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
