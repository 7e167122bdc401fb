"""Reading the client's half of an exported model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from consumer.extraction.prompts import PromptLimits, contract_hash
from consumer.serving.bundle import folders_like, load_bundle, patterns, recorded_contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMITS = PromptLimits(max_len=256, hint_max_len=128)


@pytest.fixture
def folder(tmp_path: Path, tokenizer_json: bytes) -> Path:
    """A bundle as the export writes it."""
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json)
    settings = {
        "format": 1,
        "limits": asdict(LIMITS),
        "cells_per_window": 256,
        "contract": contract_hash(tokenizer_json, LIMITS, 256),
        "tokenizer_sha256": hashlib.sha256(tokenizer_json).hexdigest(),
        "checkpoint_sha256": "0" * 64,
        "precision": "float32",
        "model": {"hidden_size": 256},
    }
    (tmp_path / "bundle.json").write_text(json.dumps(settings))
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "bundle.json"
    settings = json.loads(file.read_text())
    edit(settings)
    file.write_text(json.dumps(settings))


def test_an_asterisk_names_folders_with_a_bundle_the_newest_first(tmp_path: Path) -> None:
    """By the numbers in their names. Other characters are themselves, and hidden folders are Kubernetes' own."""
    for name in ("m[1]/2", "m[1]/10", "m[1]/9", "m[1]/.hidden", "m1/11", "m[1]/lost+found", "m[1]/old"):
        (tmp_path / name / "bundle").mkdir(parents=True)
        if name != "m[1]/lost+found":
            (tmp_path / name / "bundle/bundle.json").write_text("{}")
    found = folders_like(f"{tmp_path}/m[1]/*/bundle")
    assert [each.relative_to(tmp_path).as_posix() for each in found] == [
        f"m[1]/{name}/bundle" for name in ("10", "9", "2", "old")
    ]
    assert patterns(["/a/b", "/a/*/b", "c*"]) == ["/a/*/b", "c*"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"contract": null}', '{"contract": "x"}', None])
def test_a_contract_that_is_not_recorded_is_none(tmp_path: Path, content: str | None) -> None:
    """Reading the bundle says why."""
    if content is not None:
        (tmp_path / "bundle.json").write_text(content)
    assert recorded_contract(tmp_path) is None


def test_a_bundle_reads_back(folder: Path, tokenizer_json: bytes) -> None:
    """Limits, K, contract and tokenizer are those that were exported."""
    bundle = load_bundle(folder)
    assert bundle.limits == LIMITS
    assert bundle.cells_per_window == 256
    assert bundle.contract == contract_hash(tokenizer_json, LIMITS, 256)
    assert bundle.tokenizer.json == tokenizer_json
    assert recorded_contract(folder) == bundle.contract


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda s: s.update(format=2), r"bundle\.json: format is 2, this version of Rexstream reads 1"),
        (lambda s: s.pop("format"), "format is None"),
        (lambda s: s.pop("contract"), "no 'contract'"),
        (lambda s: s.update(contract="seven"), "seven"),
        (lambda s: s.update(contract=7), "contract is 7"),
        (lambda s: s.update(cells_per_window=128), "contract is"),
        (lambda s: s["limits"].update(max_len=512), "contract is"),
        (lambda s: s["limits"].pop("max_len"), "limits must have exactly"),
        (lambda s: s["limits"].update(more=1), "limits must have exactly"),
        (lambda s: s.update(tokenizer_sha256="f" * 64), r"tokenizer\.json has SHA-256"),
    ],
)
def test_a_bundle_that_was_changed_is_refused(
    folder: Path, edit: Callable[[dict[str, Any]], object], what: str
) -> None:
    """The error names the file, the value and the way out."""
    change(folder, edit)
    with pytest.raises(ValueError, match=what) as caught:
        load_bundle(folder)
    assert str(folder) in str(caught.value)
    assert "export" in str(caught.value)


@pytest.mark.parametrize("name", ["bundle.json", "tokenizer.json"])
def test_a_folder_that_is_no_bundle_is_refused(folder: Path, name: str) -> None:
    """A missing file is named, with what the folder should have been."""
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} cannot be read .*<model>/<version>/bundle"):
        load_bundle(folder)


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_file_that_is_no_settings_is_refused(folder: Path, content: str) -> None:
    """What is not a JSON object of the known format is refused."""
    (folder / "bundle.json").write_text(content)
    with pytest.raises(ValueError, match=r"bundle\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["bundle.json", "tokenizer.json"])
def test_a_git_lfs_pointer_is_called_that(folder: Path, name: str) -> None:
    """And not invalid JSON, or a tokenizer of another export."""
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=rf"{name} is a Git LFS pointer of 63 bytes, not the file; run git lfs pull"):
        load_bundle(folder)
