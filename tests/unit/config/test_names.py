"""Templates of output topics."""

from __future__ import annotations

import pytest

from consumer.config.names import output_topic, plain_topic


@pytest.mark.parametrize(
    ("template", "named", "plain"),
    [
        ("reviews.extracted", "reviews.extracted", "reviews.extracted"),
        ("reviews.extracted.{task}", "reviews.extracted.ner", "reviews.extracted"),
        ("reviews-{task}", "reviews-ner", "reviews"),
        ("reviews.{task}.out", "reviews.ner.out", "reviews.out"),
        ("{task}.reviews", "ner.reviews", "reviews"),
        ("{task}", "ner", ""),
    ],
)
def test_topic_templates(template: str, named: str, plain: str) -> None:
    """The plain topic is the template without the placeholder and its separator."""
    assert output_topic(template, "ner") == named
    assert plain_topic(template) == output_topic(template, "inline") == plain
