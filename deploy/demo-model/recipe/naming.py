"""The names to ask under: ``naming.yaml``, and a random choice among them. Names held out are never chosen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

FILE: Final = Path(__file__).parent / "naming.yaml"
POLARITIES: Final = ("positive", "negative", "neutral")
INTENTS: Final = ("yes", "no", "none")
CANONICAL: Final = "canonical"

_CANONICAL_SHARE: Final = 0.5
_STYLE_SHARE: Final = 0.9
"""Of a set with a style of its own; the rest asks it under the canonical names."""


@dataclass(frozen=True, slots=True)
class AspectNames:
    """What an aspect and the opinions on it are called. ``polarities`` is keyed by POLARITIES."""

    aspect: str
    polarities: dict[str, str]


class Naming:
    """Everything of ``naming.yaml``; ``raw`` for what needs no choice."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.canonical = _aspect_names(raw["canonical"]["aspect"], raw["canonical"]["polarities"])
        self._of_styles = [style["polarities"] for style in raw["styles"].values()]
        self._absent = {name: re.compile(pattern) for name, pattern in raw["absent"].items()}

    @classmethod
    def read(cls, path: Path = FILE) -> Naming:
        """Read the file."""
        return cls(yaml.safe_load(path.read_text("utf-8")))

    def of_aspects(self, style: str, rng: Random) -> AspectNames:
        """Names for a review of this style."""
        raw = self.raw
        if style != CANONICAL:
            own = raw["styles"][style]
            if rng.random() < _STYLE_SHARE:
                return _aspect_names(rng.choice(own["aspects"]), own["polarities"])
            return self.canonical
        if rng.random() < _CANONICAL_SHARE:
            return self.canonical
        aspect = self.canonical.aspect if rng.random() < 0.15 else rng.choice(raw["aspects"])
        if rng.random() < 0.15:
            return AspectNames(aspect, self.canonical.polarities)
        while (polarities := self._put_together(raw["polarity_forms"], rng)) in self._of_styles:
            pass
        return _aspect_names(aspect, polarities)

    def _put_together(self, forms: list[str], rng: Random) -> list[str]:
        form = rng.choice(forms)
        return [form.format(stem) for stem in rng.choice(self.raw["polarity_stems"])]

    def of_sentiment(self, rng: Random) -> tuple[str, str]:
        """Names for praise and complaint of a whole review."""
        raw = self.raw
        chance = rng.random()
        if chance < 0.45:
            names = raw["canonical"]["sentiments"]
        elif chance < 0.75:
            names = rng.choice(raw["sentiments"])
        else:
            names = self._put_together([form for form in raw["polarity_forms"] if "(" not in form], rng)
        return names[0], names[1]

    def of_categories(self, rng: Random) -> dict[str, str]:
        """Category -> its name: for a good half the category itself."""
        categories = self.raw["categories"]
        if rng.random() < 0.6:
            return {name: name for name in categories}
        form = rng.choice(self.raw["category_forms"])
        return {
            name: form.format(name if rng.random() < 0.35 else rng.choice(others))
            for name, others in categories.items()
        }

    def of_intents(self, rng: Random) -> dict[str, str]:
        """Intent -> its name."""
        names = self.raw["canonical"]["intents"] if rng.random() < 0.5 else rng.choice(self.raw["intents"])
        return dict(zip(INTENTS, names, strict=True))

    def of_entities(self, types: list[str], rng: Random) -> dict[str, str]:
        """Type -> its name, different for different types."""
        known = self.raw["entities"]
        names = {name: name if rng.random() < 0.65 else rng.choice(known.get(name, [name])) for name in types}
        return names if len(set(names.values())) == len(names) else {name: name for name in types}

    def absent(self, text: str, annotated: Iterable[str], number: int, rng: Random) -> list[str]:
        """At most ``number`` types of which ``text`` has nothing.

        None that may say the same as one of ``annotated``, the types of its set: those share a character, or the
        shipped task ner calls them so.
        """
        known = set(annotated)
        taken = set("".join(known)) | set("".join(self.raw["entities_of_ner"].get(name, "") for name in known))
        fitting = [name for name, marks in self._absent.items() if not marks.search(text) and not taken & set(name)]
        return rng.sample(fitting, min(number, len(fitting)))

    @property
    def held_out(self) -> set[str]:
        """Every name that must not be trained under."""
        out = self.raw["held_out"]
        pairs = [name for group in ("polarities", "sentiments") for names in out[group] for name in names]
        return {*out["aspects"], *pairs, *out["categories"].values(), *out["intents"]}

    def characters(self) -> str:
        """Every character of every name: the vocabulary must have them."""
        return "".join(_strings(self.raw))


def _aspect_names(aspect: str, polarities: list[str]) -> AspectNames:
    return AspectNames(aspect, dict(zip(POLARITIES, polarities, strict=True)))


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in [str(key), *_strings(each)]]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [str(value)]
