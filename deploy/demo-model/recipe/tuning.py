"""Fine-tuning on an owner's rows: samples under the names of the rows' own schemas, a part of the rows held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recipe.classes import shortened
from recipe.entities import level_of, some_types, windowed
from recipe.rows import DataError, kept_for_validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from recipe.rows import Row
    from recipe.samples import Layout, Sample

HELD_OUT_PERCENT: Final = 20
FEWEST: Final = 20
"""Rows of each side."""


def sides(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(to train on, held out), by a hash of the text. Raises DataError for rows without schema, or too few."""
    for row in rows:
        if not row.schema:
            raise DataError(
                f"{row.text[:20]!r} has no schema; fine-tuning takes rows in RexUniNLU's form: text, schema, info_list "
                "(schemas/samples/product_features.jsonl is an example)"
            )
    held = [row for row in rows if kept_for_validation(row.text, HELD_OUT_PERCENT)]
    trained = [row for row in rows if not kept_for_validation(row.text, HELD_OUT_PERCENT)]
    if min(len(held), len(trained)) < FEWEST:
        raise DataError(
            f"{len(rows)} rows make {len(trained)} to train on and {len(held)} to measure with; at least {FEWEST} of "
            "each are needed, and some hundred are worth the time"
        )
    return trained, held


class OwnSamples:
    """A level of a random row, or its classes."""

    def __init__(self, rows: Sequence[Row], layout: Layout) -> None:
        self._rows, self._layout = rows, layout

    def own(self, rng: Random) -> Sample:
        """Positive and negative types alike: all that the row's schema asks for, or some of a long one."""
        row = rng.choice(self._rows)
        if row.kind == "extract":
            text, paths = windowed(row, rng)
            return level_of(self._layout, text, paths, row.schema, "own", rng)
        multi = row.kind == "multi_classify"
        names = some_types(list(row.schema), row.types, rng)
        return self._layout.classification(shortened(row.text, rng), names, row.types, "own", multi=multi)
