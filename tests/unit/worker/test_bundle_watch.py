"""Bundles that come while a worker runs: taken in when they are whole, named once when they cannot be used."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER, another_tokenizer

from consumer.config.credential_files import CredentialFileError
from consumer.config.loading import load_config
from consumer.extraction.prompts import PromptLimits, contract_hash
from consumer.serving.bundle import load_bundle
from consumer.worker import bundle_watch
from consumer.worker.bundle_watch import BundleWatch
from consumer.worker.start_checks import MOST_BUNDLES, StartChecks

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.serving.bundle import Bundle


@pytest.fixture
def watch(tmp_path: Path) -> BundleWatch:
    """Of every bundle below ``models``, where version 1 is in use."""
    first = load_bundle(write_bundle(tmp_path / "models/1/bundle"))
    return BundleWatch([f"{tmp_path}/models/*/bundle"], [first])


def folders(bundles: list[Bundle]) -> list[str]:
    """Of the versions."""
    return [each.name.split("/bundle (")[0].rpartition("/")[2] for each in bundles]


@pytest.mark.parametrize("names", [("bundle.json", "tokenizer.json"), ("tokenizer.json", "bundle.json")])
def test_a_bundle_is_found_when_its_last_byte_is_there(
    watch: BundleWatch, tmp_path: Path, names: tuple[str, str]
) -> None:
    """In whatever order its files come, and without a word before."""
    source = write_bundle(tmp_path / "elsewhere", ANOTHER_TOKENIZER)
    target = tmp_path / "models/2/bundle"
    target.mkdir(parents=True)
    with structlog.testing.capture_logs() as lines:
        for name in names:
            content = (source / name).read_bytes()
            for part in (1, 2, 3, 4):
                assert watch.look() == []
                (target / name).write_bytes(content[: len(content) * part // 4])
        assert folders(watch.look()) == ["2"]
        assert watch.look() == []
    assert lines == []


def test_what_stays_broken_is_named_once_and_tried_again_when_it_changes(watch: BundleWatch, tmp_path: Path) -> None:
    """Others go on; a folder that is removed and comes again is a new one."""
    broken = write_bundle(tmp_path / "models/2/bundle", ANOTHER_TOKENIZER)
    (broken / "tokenizer.json").write_bytes(ANOTHER_TOKENIZER[:-1])
    with structlog.testing.capture_logs() as lines:
        assert [watch.look() for _ in range(4)] == [[]] * 4
        (broken / "tokenizer.json").unlink()
        assert [watch.look() for _ in range(3)] == [[]] * 3
        write_bundle(tmp_path / "models/3/bundle", another_tokenizer(3))
        assert folders(watch.look()) == ["3"]
    assert [(line["bundle"], line["log_level"]) for line in lines] == [(str(broken), "warning")] * 2
    assert "has SHA-256" in lines[0]["reason"]
    assert "cannot be read" in lines[1]["reason"]
    (broken / "tokenizer.json").write_bytes(ANOTHER_TOKENIZER)
    assert folders(watch.look()) == ["2"]


@pytest.mark.parametrize(
    ("vocabulary", "changed", "reason"),
    [
        ({}, {}, "no window can be made"),
        (None, {"limits": {**asdict(PromptLimits()), "prefix_max_len": -5}}, "no window can be made"),
        (None, {"contract": math.inf}, "cannot convert float infinity to integer"),
        (None, None, "bundle.json is not JSON"),
    ],
    ids=["vocabulary", "limits", "infinity", "depth"],
)
def test_no_folder_ends_a_worker(
    watch: BundleWatch,
    tmp_path: Path,
    vocabulary: dict[str, int] | None,
    changed: dict[str, Any] | None,
    reason: str,
) -> None:
    """Nor stops its start: whatever its files hold is refused by name, also where their checksums are right."""
    tokenizer = json.loads(ANOTHER_TOKENIZER)
    if vocabulary is not None:
        tokenizer["model"]["vocab"] = vocabulary
    content = json.dumps(tokenizer).encode()
    folder = write_bundle(tmp_path / "models/2/bundle", content)
    file = folder / "bundle.json"
    settings = json.loads(file.read_bytes()) | (changed or {})
    if changed is not None and "limits" in changed:
        settings["contract"] = contract_hash(content, PromptLimits(**changed["limits"]))
    file.write_text("[" * 100_000 if changed is None else json.dumps(settings))
    with structlog.testing.capture_logs() as lines:
        assert [watch.look() for _ in range(3)] == [[]] * 3
    assert [(line["bundle"], reason in line["reason"]) for line in lines] == [(str(folder), True)]
    assert str(folder) in lines[0]["reason"]
    overrides = [f"model.bundle={tmp_path}/models/1/bundle", f"model.bundles=[{tmp_path}/models/*/bundle]"]
    checks = StartChecks(load_config(None, {}, overrides))
    assert checks.refused() == []
    assert folders(list(checks.bundles)) == ["1"]


def test_a_bundle_that_could_not_be_read_is_tried_at_every_look(
    watch: BundleWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that fails for a while changes no file."""
    folder = write_bundle(tmp_path / "models/2/bundle", ANOTHER_TOKENIZER)

    def stale(_: Path) -> Bundle:
        raise ValueError("tokenizer.json cannot be read") from OSError("Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(bundle_watch, "read_bundle", stale)
        with structlog.testing.capture_logs() as lines:
            assert [watch.look() for _ in range(3)] == [[]] * 3
    assert [line["bundle"] for line in lines] == [str(folder)]
    assert folders(watch.look()) == ["2"]


def test_a_version_with_a_contract_that_is_known_costs_nothing(
    watch: BundleWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokenizer is not read; and once a bundle is found, neither is it again, nor any copy."""
    write_bundle(tmp_path / "models/2/bundle")
    read: list[Path] = []

    def counted(folder: Path) -> Bundle:
        read.append(folder)
        return load_bundle(folder)

    monkeypatch.setattr(bundle_watch, "read_bundle", counted)
    assert watch.look() == []
    assert read == []
    write_bundle(tmp_path / "models/3/bundle", ANOTHER_TOKENIZER)
    shutil.copytree(tmp_path / "models/3", tmp_path / "models/4")
    assert folders(watch.look()) == ["4"]
    assert watch.look() == []
    assert len(read) == 1


def test_there_is_a_bound(watch: BundleWatch, tmp_path: Path) -> None:
    """Each takes memory, and a probe of every model server."""
    for number in range(2, 9):
        write_bundle(tmp_path / f"models/{number}/bundle", another_tokenizer(number))
    with structlog.testing.capture_logs() as lines:
        assert len(watch.look()) == MOST_BUNDLES - 1
        assert watch.look() == []
        assert watch.look() == []
    assert len(lines) == 8 - MOST_BUNDLES
    assert all("there are 4 bundles already" in line["reason"] for line in lines)


def test_a_bundle_waits_for_credentials_that_are_being_exchanged(
    watch: BundleWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is logged once; nothing is looked for twice."""
    monkeypatch.setattr(bundle_watch, "LOOK_SECONDS", 0)
    write_bundle(tmp_path / "models/2/bundle", ANOTHER_TOKENIZER)
    tries: list[Any] = []

    def add(bundle: Bundle) -> None:
        tries.append(bundle)
        if len(tries) < 4:
            raise CredentialFileError("ca.pem is empty")
        added.set()

    async def main() -> None:
        async with asyncio.timeout(20):
            running = asyncio.create_task(watch.run(add))
            await added.wait()
            running.cancel()

    added = asyncio.Event()
    with structlog.testing.capture_logs() as lines:
        asyncio.run(main())
    assert len(tries) == 4
    assert len(set(map(id, tries))) == 1
    assert [line["event"] for line in lines] == ["a bundle waits for credentials", "another bundle was found"]
