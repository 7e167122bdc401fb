"""The sample reviews."""

from __future__ import annotations

import json

from consumer.config.shipped import shipped


def sample_reviews() -> list[str]:
    """The texts, in order."""
    with shipped("schemas/samples/reviews.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]
