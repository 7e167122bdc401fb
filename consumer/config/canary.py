"""The section ``model.canary``: which events another version of the model answers, and its rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from consumer.config.section import Section, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.problems import Check, KeyPath
    from consumer.config.tree import ModelConfig


class CanaryConfig(Section):
    """A second version of the model on the same server, for a share of the events; ``model.label`` or ``model.version``
    names the stable one. A running worker reads ``share`` and ``slower`` again from its configuration file, every few
    seconds. docs/runbooks/canary.md has the steps.
    """

    label: Text | None = None
    """Version label of the canary, such as ``canary``; excludes ``version``."""
    version: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Version of the canary; excludes ``label``."""
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Share of the events that the canary answers, 0 to 1, chosen by a hash of the record's key: all records of a key,
    and whoever is in a small share is in a larger one. Records without a key go by topic, partition and offset."""
    slower: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3.0
    """When the canary's calls take more than so many times as long as those of the stable version, each for its size,
    all events go back to the stable one, until the share is changed."""


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
