"""Which bundles a worker starts with."""

from __future__ import annotations

from pathlib import Path

from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER, another_tokenizer

from consumer.cli.dependencies import start_findings
from consumer.config.loading import load_config
from consumer.worker.start_checks import StartChecks


def test_a_bundle_with_the_contract_of_another_is_left_out(tmp_path: Path) -> None:
    """Both would fit whatever is served, and halve its batches between them; either does for both."""
    first, copy = str(write_bundle(tmp_path / "1")), str(write_bundle(tmp_path / "2"))
    another = str(write_bundle(tmp_path / "3", ANOTHER_TOKENIZER))
    config = load_config(None, {}, [f"model.bundle={first}", f"model.bundles=[{copy}, {another}]"])
    checks = StartChecks(config)
    assert [each.name.split()[0] for each in checks.bundles] == [first, another]
    found = {each.subject: each for each in checks.found if each.subject.startswith("model.bundle")}
    assert all(each.well for each in found.values())
    assert f"{copy} (" in found["model.bundles.0"].detail
    assert f"is not used: {first} (" in found["model.bundles.0"].detail
    assert another in found["model.bundles.1"].detail


def test_what_is_wrong_with_a_bundle_names_its_folder(tmp_path: Path) -> None:
    """Also where the tokenizer's library, or a limit, is what refuses it."""
    folder = write_bundle(tmp_path / "1", b'{"version": "9"}')
    (refused,) = StartChecks(load_config(None, {}, [f"model.bundle={folder}"])).refused()
    assert str(refused).startswith(f"model.bundle: {folder}: not a tokenizer.json")


def test_what_an_asterisk_finds_stops_no_start(tmp_path: Path) -> None:
    """The newest come first, and no tokenizer is loaded twice; what is half copied, or one too many, is a warning."""
    first = str(write_bundle(tmp_path / "1/bundle"))
    write_bundle(tmp_path / "2/bundle")
    for number in range(7, 12):
        write_bundle(tmp_path / f"{number}/bundle", another_tokenizer(number))
    (tmp_path / "11/bundle/tokenizer.json").write_bytes(another_tokenizer(11)[:900])
    config = load_config(None, {}, [f"model.bundle={first}", f"model.bundles=[{tmp_path}/*/bundle, {tmp_path}/x*]"])
    checks = StartChecks(config)
    assert checks.refused() == []
    found = [Path(each.name.split()[0]).parts[-2] for each in checks.bundles]
    assert found == ["1", "10", "9", "8"]
    findings = [each for each in start_findings(checks) if each.subject.startswith("model.bundles")]
    warned = [each.detail for each in findings if each.status == "warn"]
    assert len(warned) == 3
    assert "tokenizer.json has SHA-256" in warned[0]
    assert "7/bundle is not used: there are 4 bundles already" in warned[1]
    assert "x* finds 0 bundles" in warned[2]
    assert "finds 7 bundles" in findings[0].detail
    assert not any("2/bundle" in each.detail for each in findings)
