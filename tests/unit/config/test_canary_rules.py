"""Canaries and bundles that cannot work are refused by name, with the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.config.loading import load_config
from consumer.config.problems import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{label: stable, canary: {share: 0.1}}", "model.canary.label or model.canary.version"),
        ("{label: stable, canary: {label: a, version: 2}}", "keep one of them"),
        ("{canary: {label: canary}}", "set model.label (such as stable) or model.version"),
        ("{label: canary, canary: {label: canary}}", "is the stable version itself"),
        ("{version: 2, canary: {version: 2}}", "is the stable version itself"),
        ("{label: stable, canary: {label: canary, share: 1.5}}", "must be at most 1"),
        ("{label: stable, canary: {label: canary, slower: 1}}", "must be greater than 1"),
        ("{label: stable, canary: }", "write its keys, or remove it"),
        ("{bundles: [b]}", "write the first of them into model.bundle"),
        ("{bundle: a, bundles: [b, a]}", "model.bundles.1"),
        ("{bundle: /models/*/bundle}", "write it into model.bundles"),
    ],
)
def test_what_cannot_work_is_refused(model: str, says: str, tmp_path: Path) -> None:
    """Each by its key."""
    file = tmp_path / "c.yaml"
    file.write_text(f"model: {model}")
    with pytest.raises(ConfigError) as refused:
        load_config(str(file), {})
    assert says in str(refused.value)


def test_a_canary_beside_a_stable_version_can_work() -> None:
    """By label or by version, with a share of its own."""
    model = ("model.version=1", "model.bundle=a", "model.bundles=[b]", "model.canary.version=2")
    config = load_config(None, {"REXSTREAM_MODEL__CANARY__SHARE": "0.25"}, model)
    assert config.model.canary is not None
    assert (config.model.canary.share, config.model.canary.version) == (0.25, 2)
