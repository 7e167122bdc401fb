"""Events with reviews of mixed lengths."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parents[3] / "schemas/samples/reviews.jsonl"
MEDIAN, P90 = 34, 131
"""Characters of real shop reviews (ChineseNlpCorpus, online_shopping_10_cats: 52,106 reviews; p99 375, longest 2,876).
The lognormal distribution through these two has its p99 at 395."""
SIGMA = math.log(P90 / MEDIAN) / 1.2816  # the 90 % quantile of the standard normal distribution
LONGEST = 2876


def events(count: int, seed: int = 0, prefix: str = "e") -> Iterator[tuple[str, bytes]]:
    """Ids, which begin with ``prefix``, and JSON: the sample reviews, joined and cut to lengths of that distribution.

    The same for the same seed.
    """
    rng = random.Random(seed)
    samples = [json.loads(line)["text"] for line in SAMPLES.open(encoding="utf-8")]
    for number in range(count):
        length = min(LONGEST, max(4, round(rng.lognormvariate(math.log(MEDIAN), SIGMA))))
        text = rng.choice(samples)
        while len(text) < length:
            text += rng.choice(samples)
        yield event(f"{prefix}{number}", text[:length])


def small_events(count: int) -> Iterator[tuple[str, bytes]]:
    """Many short ones, for a lag that is made of records and not of bytes."""
    return (event(f"e{number}", "屏幕很清晰") for number in range(count))


def event(name: str, text: str) -> tuple[str, bytes]:
    """Its id, which is the record's key, and its bytes."""
    return name, json.dumps({"event_id": name, "text": text}, ensure_ascii=False).encode()
