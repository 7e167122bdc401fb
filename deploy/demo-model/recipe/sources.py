"""The sets of ``recipe.yaml`` as reviews, rows and labelled texts, one side of the split, and samples of every kind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recipe.aspects import AspectSamples
from recipe.classes import OtherClasses, ShopSamples, TopicSamples
from recipe.entities import EntitySamples, NestedSamples
from recipe.invented import InventedSamples
from recipe.naming import CANONICAL, INTENTS
from recipe.reviews import Review, review_of
from recipe.rows import IMPLICIT, DataError, Row, lines_of, read_rows, row_of, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from recipe.naming import Naming
    from recipe.samples import Layout, Sample

FOLDER: Final = Path(__file__).parent.parent
WRITTEN: Final = frozenset({"written.jsonl", "written_intents.jsonl"})
"""Sets of this folder; all others are the user's."""
_SENTIMENTS: Final = {"正": True, "负": False}
_WRITTEN_TIMES: Final = 2
"""How often a written review stands among those with a category: the shop's own are ten times as many."""


@dataclass(slots=True)
class Sources:
    """One side of the split."""

    reviews: dict[str, list[Review]] = field(default_factory=dict)
    shop: list[Row] = field(default_factory=list)
    written: list[Row] = field(default_factory=list)
    """Reviews with sentiment, category and intention, of which only those with ``#`` have their facts annotated."""
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    """Group of ``recipe.yaml`` -> set -> rows."""
    intents: dict[str, str] = field(default_factory=dict)
    """review_id -> intent."""


def read_sources(
    config: dict[str, Any], data: Path, *, validation: bool, only: frozenset[str] = frozenset()
) -> Sources:
    """Read every set; files in ``only`` alone where it is not empty. Raises DataError."""
    found = Sources()
    side = partial(_side, data=data, validation=validation, only=only)
    shop = side(config["shop"]["file"])
    for name, each in config["aspects"].items():
        if "of_shop" in each:
            rows = list(_annotated(shop, FOLDER / each["of_shop"]))
            found.reviews[name] = [review_of(row, each["style"]) for row in rows]
            continue
        rows = [row for row in side(each["file"]) if len(row.text) <= each.get("longest", 400)]
        found.reviews[name] = [review_of(row, each["style"]) for row in rows]
        if each["file"] in WRITTEN:
            found.written += rows
    found.written += side(config["shop"]["written"])
    labels = _table(config["shop"]["labels"])
    found.shop = [_corrected(row, labels) for row in shop]
    found.intents = dict(_table(config["shop"]["intents"]))
    for group in ("sentiments", "entities", "classes", "nested", "pairs"):
        sets = {name: each for name, each in config[group].items() if isinstance(each, dict)}
        found.rows[group] = {name: side(each["file"]) for name, each in sets.items()}
    return found


def _side(file: str, *, data: Path, validation: bool, only: frozenset[str]) -> list[Row]:
    if only and file not in only:
        return []
    return list(split(read_rows((FOLDER if file in WRITTEN else data) / file), validation=validation))


def _annotated(shop: Sequence[Row], path: Path) -> Iterator[Row]:
    """Shop reviews with the facts that ``path`` has for their ids. Raises DataError where one is not in the text."""
    texts = {row.fields["review_id"]: row.text for row in shop}
    for number, line in lines_of(path):
        record = json.loads(line)
        if (text := texts.get(record["review_id"])) is not None:
            try:
                yield row_of({**record, "text": text})
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"{path}, line {number}: {error!r}; the shop reviews are others than those annotated"
                ) from error


def _table(file: str) -> dict[str, str]:
    """Two columns of a file of this folder, tab-separated. Raises DataError."""
    found = {}
    for number, line in lines_of(FOLDER / file):
        if not line.startswith("#"):
            key, tab, value = line.rstrip("\n").partition("\t")
            if not tab:
                raise DataError(f"{FOLDER / file}, line {number}: expected review_id, a tab and a label, got {key!r}")
            found[key] = value
    return found


def _corrected(row: Row, corrected: dict[str, str]) -> Row:
    """A shop review with its label mended: another one, or none where a careful reader could not tell."""
    label = corrected.get(str(row.fields.get("review_id")))
    if label is None:
        return row
    fields = {name: value for name, value in row.fields.items() if name != "label"}
    return Row(row.text, fields=fields if label == "none" else {**fields, "label": int(label)})


def plain(row: Row) -> str:
    """A written review as a shopper would send it."""
    return row.text.removeprefix(IMPLICIT)


def texts_of(sources: Sources, config: dict[str, Any], data: Path) -> Iterator[str]:
    """Every text of the training side, and the unlabelled ones."""
    for reviews in sources.reviews.values():
        yield from (review.text for review in reviews)
    yield from (row.text for row in sources.shop)
    for group in sources.rows.values():
        for rows in group.values():
            yield from (row.text for row in rows)
    for name in config["texts"]:
        if (data / name).is_file():
            yield from (line for _, line in lines_of(data / name))


def types_of(sources: Sources) -> set[str]:
    """Every type of every schema."""
    rows = (row for group in sources.rows.values() for rows in group.values() for row in rows)
    return {name for row in rows for name in _names(row.schema)}


def _names(schema: dict[str, Any] | None) -> list[str]:
    return [name for key, below in (schema or {}).items() for name in (key, *_names(below))]


def sentiments_of(sources: Sources, shares: dict[str, Any]) -> list[tuple[list[tuple[str, bool]], float]]:
    """Sets of (text, whether it praises), and how often each is drawn. Raises DataError for one that is none."""
    sets: dict[str, list[tuple[str, bool]]] = {
        "shop": [(row.text, bool(row.fields["label"])) for row in sources.shop if row.fields.get("label") in (0, 1)],
        "written": [
            (plain(row), _SENTIMENTS[row.fields["sentiment"]])
            for row in sources.written
            if row.fields.get("sentiment") in _SENTIMENTS
        ],
        "aspects": [
            (review.text[1:], polarities == {"positive"})
            for name, reviews in sources.reviews.items()
            if name != "written"
            for review in reviews
            if review.style == CANONICAL
            and (polarities := {fact.polarity for fact in review.facts if fact.polarity})
            in ({"positive"}, {"negative"})
        ],
        **{
            name: [(row.text, _praises(name, next(iter(row.types)))) for row in rows if row.types]
            for name, rows in sources.rows["sentiments"].items()
        },
    }
    if unknown := {name for name, each in shares.items() if not isinstance(each, dict)} - sets.keys():
        raise DataError(f"sentiments of recipe.yaml: {', '.join(sorted(unknown))} has no file and is none of our own")
    return [(sets.get(name, []), each["share"] if isinstance(each, dict) else each) for name, each in shares.items()]


def _praises(name: str, type_: str) -> bool:
    if type_[:1] not in _SENTIMENTS:
        raise DataError(f"sentiments of recipe.yaml, {name}: type {type_!r} starts with neither 正 nor 负")
    return _SENTIMENTS[type_[:1]]


def categories_of(sources: Sources) -> list[tuple[str, str]]:
    """(text, category) of shop reviews and written ones."""
    shop = [(row.text, str(row.fields["category"])) for row in sources.shop if "category" in row.fields]
    written = [(plain(row), str(row.fields["category"])) for row in sources.written if "category" in row.fields]
    return shop + written * _WRITTEN_TIMES


def intents_of(sources: Sources) -> list[tuple[str, str]]:
    """(text, intent) of labelled shop reviews and written ones."""
    by_id = {str(row.fields.get("review_id")): row.text for row in sources.shop}
    shop = [(by_id[key], intent) for key, intent in sources.intents.items() if key in by_id and intent in INTENTS]
    written = [
        (plain(row), str(row.fields["intent"])) for row in sources.written if row.fields.get("intent") in INTENTS
    ]
    return shop + written


def makers(
    sources: Sources, config: dict[str, Any], layout: Layout, naming: Naming
) -> dict[str, Callable[[Random], Sample]]:
    """Kind of sample -> what draws one. Kinds that have no data are left out.

    Raises DataError where there are no data, or a set's own types have a name that must not be trained under.
    """
    if trained := naming.held_out & types_of(sources):
        raise DataError(
            f"a set of recipe.yaml asks for {', '.join(sorted(trained))}, which is under held_out of recipe/naming.yaml"
            ", to be measured as a name never trained: rename it in one of the two"
        )
    share = {group: _shares(config[group]) for group in ("aspects", "entities", "classes", "nested")}
    reviews = {name: each for name, each in sources.reviews.items() if each}
    found: dict[str, Callable[[Random], Sample]] = {}
    if reviews:
        aspects = AspectSamples(reviews, share["aspects"], layout, naming)
        found |= {"aspects": aspects.aspects, "opinions": aspects.opinions, "links": aspects.links}
        every = [review for each in reviews.values() for review in each]
        if not (topics := TopicSamples(every, layout, naming)).empty:
            found["topics"] = topics.topic
    sentiments = sentiments_of(sources, config["sentiments"])
    categories, intents = categories_of(sources), intents_of(sources)
    shop = ShopSamples(sentiments, categories, intents, layout, naming)
    if any(texts for texts, _ in sentiments):
        found["sentiment"] = shop.sentiment
    if categories:
        found["category"] = shop.category
    if intents:
        found["intent"] = shop.intent
    entities = EntitySamples(sources.rows["entities"], share["entities"], layout, naming)
    if any(sources.rows["entities"].values()):
        found["entities"] = entities.entities
    if any(sources.rows["classes"].values()):
        forms = {name: each.get("forms", []) for name, each in config["classes"].items()}
        found["classes"] = OtherClasses(sources.rows["classes"], share["classes"], forms, layout).classes
    nested = NestedSamples(sources.rows["nested"], share["nested"], layout)
    if not nested.empty:
        found["nested"] = nested.nested
    if reviews:
        entity_rows = [row for name in ("cluener", "resume") for row in sources.rows["entities"].get(name, ())]
        pairs = [row for rows in sources.rows["pairs"].values() for row in rows]
        found["invented"] = InventedSamples(every, entity_rows, pairs, layout).invented
    if not found:
        raise DataError("none of the sets of recipe.yaml has a row; see deploy/demo-model/README.md")
    return found


def _shares(group: dict[str, Any]) -> dict[str, float]:
    return {name: float(each["share"]) for name, each in group.items()}
