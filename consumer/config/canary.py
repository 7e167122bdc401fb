"""The section ``model.canary``: which events another version of the model answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consumer.config.section import Section, Text


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
    all events go back to the stable one, until the share is changed. A call that is under way for so many times as long
    as the stable one's last calls took, and 5 s at least, hangs."""
