"""Rules of ``model.canary`` and ``model.bundles``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.problems import Check, KeyPath
    from consumer.config.tree import ModelConfig


def canary_checks(model: ModelConfig) -> Iterator[Check]:
    """Canaries and bundles that cannot work."""
    section: KeyPath = ("model", "canary")
    for index, bundle in enumerate(model.bundles):
        yield (
            bundle in (model.bundle, *model.bundles[:index]),
            ("model", "bundles", index),
            f"{bundle} is named twice",
            "remove it: model.bundle and each of model.bundles are folders of different exports",
        )
    yield (
        bool(model.bundles) and model.bundle is None,
        ("model", "bundles"),
        "is set without model.bundle",
        "write the first of them into model.bundle",
    )
    yield (
        "*" in (model.bundle or ""),
        ("model", "bundle"),
        f"{model.bundle} may be several folders",
        "write it into model.bundles, and here the folder of one bundle that is there when a worker starts",
    )
    if (canary := model.canary) is None:
        return
    yield (
        (canary.label is None) == (canary.version is None),
        section,
        "label and version are both set" if canary.label is not None else "names no version",
        "keep one of them" if canary.label is not None else "set model.canary.label or model.canary.version",
    )
    yield (
        model.label is None and model.version is None,
        section,
        "is set, but the stable version is not named: the newest one would be the canary itself",
        "set model.label (such as stable) or model.version",
    )
    same = (canary.label is not None and canary.label == model.label) or (
        canary.version is not None and canary.version == model.version
    )
    yield same, section, "is the stable version itself", "name another label or version"
