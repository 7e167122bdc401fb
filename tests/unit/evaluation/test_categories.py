"""Where a schema predicts categories of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from judged_cases import pair, path

from consumer.evaluation.categories import category_level, pair_words, split

if TYPE_CHECKING:
    from consumer.evaluation.paths import NamedPath

CATEGORIES = {"物流": None, "价格": None}
PAIR = pair("快递", 0, "好评", "很快", 2)


@pytest.mark.parametrize(
    ("schema", "level"),
    [
        ({"属性词": {"好评": CATEGORIES, "差评": CATEGORIES}}, 2),
        ({"属性词": {"好评": None, "差评": {"价格": None}}}, 2),
        ({"物流": {"好评": None}, "价格": {"好评": None}, "其他方面": {"好评": None}}, 0),
        ({"属性词": {"好评": None, "差评": None}}, None),
        ({"属性词": CATEGORIES}, None),
    ],
    ids=["below-polarity", "below-one", "first-level", "none", "as-polarity"],
)
def test_the_level_of_categories_is_found_by_their_names(schema: dict[str, dict[str, None]], level: int | None) -> None:
    """In place of the aspect's type, or below the pair; a polarity is no category."""
    assert category_level(schema, {"物流", "价格", "服务"}) == level


def test_a_category_below_the_polarity_is_taken_off_the_path() -> None:
    """Its span is none of the gold's. A pair with two categories is one path with two quadruples."""
    found = {
        (*PAIR, path(("物流", "快递很快", 0))[0]): (0.9, 0.8, 0.7),
        (*PAIR, path(("价格", "快", 3))[0]): (0.9, 0.8, 0.6),
    }
    assert split(found, 2, "属性词") == ({PAIR: (0.9, 0.8)}, frozenset({(PAIR, "物流"), (PAIR, "价格")}))
    assert split({PAIR: (0.9, 0.8)}, 2, "属性词") == ({PAIR: (0.9, 0.8)}, frozenset())


def test_a_category_in_place_of_the_aspect_s_type_gives_way_to_it() -> None:
    """So that the pair is compared with a gold that has its category beside it."""
    found: dict[NamedPath, tuple[float, ...]] = {(PAIR[0]._replace(type="物流"), PAIR[1]): (0.9, 0.8)}
    assert split(found, 0, "属性词") == ({PAIR: (0.9, 0.8)}, frozenset({(PAIR, "物流")}))
    assert split(found, 0, None)[0] == found


def test_a_pair_s_words_are_aspect_and_opinion() -> None:
    """The product as a whole has none."""
    assert (pair_words(PAIR), pair_words(pair("", 0, "好评", "不错", 2))) == ("快递很快", "不错")
    assert pair_words((*PAIR, *path(("程度", "很", 2)))) == "快递很快"
