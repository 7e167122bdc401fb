"""The built wheel in an empty environment: nothing of the checkout, no extra, and it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from stub_server import StubServer, write_bundle

# Beside other work, packages take minutes to be unpacked.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rexstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the installed wheel. Skips where the package registry cannot be reached."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("rexstream-*.whl")
    # This environment's pip fills the empty one, where there is one: uv makes environments without.
    with_pip = find_spec("pip") is None
    venv.create(folder / "venv", with_pip=with_pip)
    python = folder / "venv/bin/python"
    pip = [str(python), "-m", "pip"] if with_pip else [sys.executable, "-m", "pip", "--python", str(python)]
    # What is not imported here need not be compiled.
    install = [*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    done = subprocess.run([*install, *constraints, str(wheel)], capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI") and "Could not find a version" in done.stderr:
        pytest.skip("the package registry cannot be reached, so the wheel's requirements cannot be installed")
    assert done.returncode == 0, done.stderr
    return folder / "venv/bin/rexstream"


def run(rexstream: Path, folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Outside the checkout, with none of this environment's paths."""
    command = [str(rexstream), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), input=given, capture_output=True, text=True, timeout=100
    )


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"}


def test_the_installed_wheel_checks_and_extracts(rexstream: Path, server: StubServer, tmp_path: Path) -> None:
    """Task files, Avro schemas and messages are inside; TensorFlow is not needed, and what needs it says so."""
    bundle = write_bundle(tmp_path / "bundle")
    settings = {"model": {"target": server.target, "name": "stub", "bundle": str(bundle)}}
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(settings))
    checked = run(rexstream, tmp_path, "check", "--config", "worker.yaml", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "fail" not in {finding["status"] for finding in json.loads(checked.stdout)["findings"]}

    arguments = ("extract", "--server", server.target, "--model", "stub", "--bundle", str(bundle))
    given = json.dumps({"text": "外壳结实，颜色正"}) + "\n"
    extracted = run(rexstream, tmp_path, *arguments, "--task", "product_features", given=given)
    assert extracted.returncode == 0, extracted.stderr
    assert json.loads(extracted.stdout)["extractions"]

    refused = run(rexstream, tmp_path, "export", "--checkpoint", "x", "--output", "y")
    assert refused.returncode == 2
    assert "rexstream[model]" in refused.stderr


def test_the_wheel_carries_the_demo_s_reviews_and_their_gold_facts(rexstream: Path, tmp_path: Path) -> None:
    program = (
        "from consumer.local.demo_events import sample_events;"
        "print([event.facts is not None for event in sample_events()].count(True))"
    )
    command = [str(rexstream.with_name("python")), "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    gold = (ROOT / "schemas/samples/product_features.jsonl").read_text("utf-8").splitlines()
    assert int(done.stdout) == len(gold) > 0


def test_the_wheel_carries_its_licence_and_its_types(rexstream: Path, tmp_path: Path) -> None:
    program = (
        "import consumer, importlib.metadata as m;"
        "print(consumer.__file__, m.metadata('rexstream')['License-Expression'], sep='\\n')"
    )
    command = [str(rexstream.with_name("python")), "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    file, licence = done.stdout.splitlines()
    assert licence == "Apache-2.0"
    assert Path(file).with_name("py.typed").exists()
    assert not str(file).startswith(str(ROOT))
