"""Which bundles a worker starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER

from consumer.config.loading import load_config
from consumer.worker.start_checks import StartChecks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bundle_with_the_contract_of_another_is_left_out(tmp_path: Path) -> None:
    """Both would fit whatever is served, and halve its batches between them; either does for both."""
    first, copy = str(write_bundle(tmp_path / "1")), str(write_bundle(tmp_path / "2"))
    another = str(write_bundle(tmp_path / "3", ANOTHER_TOKENIZER))
    config = load_config(None, {}, [f"model.bundle={first}", f"model.bundles=[{copy}, {another}]"])
    checks = StartChecks(config)
    assert [each.name.split()[0] for each in checks.bundles] == [first, another]
    found = {each.subject: each for each in checks.found if each.subject.startswith("model.bundle")}
    assert all(each.well for each in found.values())
    assert found["model.bundles.0"].detail.endswith(f"is not used: {first} has the same contract and does for both")
    assert another in found["model.bundles.1"].detail
