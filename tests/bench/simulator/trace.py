"""Traces: when events arrive, and which windows they have on which level.

Times are seconds, lengths are tokens. Lengths of texts are those of real reviews; windows are made of them by the rules
of ``consumer/extraction/window.py``: a hint, a piece of the text, one closing token, at most 512 together, neighbouring
pieces overlapping by 32. The figures of hints were read off the task ``product_features`` with the tokenizer of the
demo model, which makes about a token of a Chinese character.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from consumer.batching.queue import LANE, padded_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.simulator.server import Profile

SAMPLES: Final = Path(__file__).parents[3] / "schemas/samples/reviews.jsonl"
WINDOW_TOKENS: Final = 512
OVERLAP_TOKENS: Final = 32
FIRST_HINT: Final = 7
"""Tokens of the hint of level 0."""
FACT_TOKENS: Final = 36
"""Of a fact's part in a hint of level 1: its prefix of 6, three types of 9, a marker for each."""
FACTS_PER_HINT: Final = 7
"""256 tokens of a hint / 36."""
FACTS: Final = (0.3, 0.6)
"""A text of n characters has about 0.3 * n ** 0.6 facts: of the gold facts of the sample reviews there is one for 12
characters in reviews of less than 30, one for 16 from 30 to 60, one for 33 in those of 270 to 330."""
LONGEST_TEXT: Final = 4_000
"""Characters. Longer ones make hundreds of windows each, and are a situation of their own (``with_large_event``)."""

REPLAY: Final = "replay"
WEIGHTS: Final = {LANE: 4.0, REPLAY: 1.0}
"""The lanes, as ``batching.lanes``."""

Levels = tuple[tuple[int, ...], ...]
"""Lengths of the windows of each level."""


@dataclass(frozen=True, slots=True)
class Event:
    """What one record needs of the model. ``ordinary`` is False for the one that others must not suffer from."""

    at: float
    """When it arrives: the timestamp of its record."""
    levels: Levels
    ordinary: bool = True
    lane: str = LANE


def read_lengths(path: Path = SAMPLES) -> tuple[int, ...]:
    """Characters of each review in a file of JSON lines with ``text``, gzipped or not; cut at the limit of a text."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return tuple(min(LONGEST_TEXT, max(1, len(json.loads(line)["text"]))) for line in lines)


def windows(hint: int, text: int) -> tuple[int, ...]:
    """Lengths of the windows of a text of ``text`` tokens behind a hint."""
    room = WINDOW_TOKENS - hint - 1
    if text <= room:
        return (hint + text + 1,)
    pieces = math.ceil((text - OVERLAP_TOKENS) / (room - OVERLAP_TOKENS))
    last = text - (pieces - 1) * (room - OVERLAP_TOKENS)
    return (WINDOW_TOKENS,) * (pieces - 1) + (hint + last + 1,)


def one_level(text: int, rng: random.Random) -> Levels:  # noqa: ARG001 - the other kind draws
    """A classification: one hint over the text."""
    return (windows(FIRST_HINT, text),)


def tiny(text: int, rng: random.Random) -> Levels:  # noqa: ARG001 - titles and ratings are short whatever reviews are
    """A classification of titles: hundreds of windows in a call, so that what a row costs the client counts."""
    return ((rng.randint(9, 16),),)


def two_levels(text: int, rng: random.Random) -> Levels:
    """Features and opinions on them: level 1 asks for the facts of level 0, at most seven in a hint."""
    factor, exponent = FACTS
    facts = 1 + sum(rng.random() < 0.5 for _ in range(round(2 * (factor * text**exponent - 1))))
    full, rest = divmod(facts, FACTS_PER_HINT)
    hints = [FACTS_PER_HINT * FACT_TOKENS] * full + [rest * FACT_TOKENS] * (rest > 0)
    return (windows(FIRST_HINT, text), tuple(length for hint in hints for length in windows(hint, text)))


@dataclass(frozen=True, slots=True)
class Reviews:
    """Where the lengths of texts come from. Training and report draw from different reviews and other seeds."""

    lengths: tuple[int, ...]
    levels: Callable[[int, random.Random], Levels]
    stretch: int = 1
    """Texts are so many times as long as the reviews, and still no longer than ``LONGEST_TEXT``."""

    def draw(self, count: int, seed: int, *, training: bool) -> list[Levels]:
        """The windows of ``count`` events."""
        rng = random.Random(f"{seed} {'training' if training else 'report'}")
        lengths = self.lengths[0 if training else 1 :: 2]
        return [self.levels(min(LONGEST_TEXT, rng.choice(lengths) * self.stretch), rng) for _ in range(count)]


def capacity(profile: Profile, events: Iterable[Levels], max_tokens: int) -> float:
    """Events a second that one server answers when all windows are there and are packed in order of length.

    No policy gets there while it answers as events come: it is the limit that shares of capacity are shares of.
    """
    count, lengths = 0, []
    for levels in events:
        count += 1
        lengths += [padded_length(length) for level in levels for length in level]
    lengths.sort(reverse=True)
    busy, first = 0.0, 0
    while first < len(lengths):
        rows = min(max(1, max_tokens // lengths[first]), len(lengths) - first)
        busy += profile.seconds(rows, lengths[first])
        first += rows
    return count / busy


def steady(moment: float) -> float:  # noqa: ARG001 - a rate is a function of time
    """Always the same."""
    return 1.0


def diurnal(moment: float) -> float:
    """A day in the run: between a fifth and the whole of the rate."""
    return 0.6 - 0.4 * math.cos(2 * math.pi * moment)


def burst(moment: float) -> float:
    """Four times the rate, an eighth of the time, after two fifths of it."""
    return 1.0 if 0.4 <= moment < 0.525 else 0.25


def arrivals(count: int, peak: float, shape: Callable[[float], float], seed: int) -> list[float]:
    """Moments of ``count`` events: a Poisson process whose rate is ``peak * shape(moment)`` (events a second).

    ``shape`` gets the time as a share of the run, which is as long as that many events take on average.
    """
    mean = sum(shape((step + 0.5) / 1000) for step in range(1000)) / 1000
    seconds = count / (peak * mean)
    rng = random.Random(f"{seed} arrivals")
    found: list[float] = []
    now = 0.0
    while len(found) < count:
        now += rng.expovariate(peak)
        if rng.random() < shape(now / seconds % 1.0):
            found.append(now)
    return found


def trace(moments: Sequence[float], shapes: Sequence[Levels]) -> list[Event]:
    """Events at these moments."""
    return [Event(at, levels) for at, levels in zip(moments, shapes, strict=True)]


def with_large_event(events: Sequence[Event], count: int) -> list[Event]:
    """One more, of 200 KB: it has ``count`` windows of full length and arrives after a third of the others."""
    place = len(events) // 3
    large = Event(events[place].at, ((WINDOW_TOKENS,) * count,), ordinary=False)
    return [*events[:place], large, *events[place:]]
