"""The shipped sample reviews are what the demo and the documents say they are."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from typing import Any

import pytest

from consumer.codecs.decoding import decode_value
from consumer.config.shipped import shipped
from consumer.config.task_files import load_tasks

CATEGORIES = {"书籍", "平板", "手机", "水果", "洗发水", "热水器", "蒙牛", "衣服", "计算机", "酒店"}


def _lines() -> list[str]:
    return shipped("schemas/samples/reviews.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def reviews() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines()]


def test_every_line_is_an_event_that_the_worker_accepts() -> None:
    """Each line decodes without a complaint, with the fields that were written."""
    for line in _lines():
        fields, event = json.loads(line), decode_value(line.encode(), "json", "unused")
        assert (event.event_id, event.text, event.attributes) == (
            fields["event_id"],
            fields["text"],
            fields["attributes"],
        )
        assert (event.product_id, event.source, event.created_at) == (
            fields["product_id"],
            fields["source"],
            fields["created_at"],
        )


def test_ids_are_unique_and_numbered_without_a_gap(reviews: list[dict[str, Any]]) -> None:
    """A missing outcome of the demo can be named, since no two samples share an id."""
    assert [review["event_id"] for review in reviews] == [f"sample-{n:04d}" for n in range(1, len(reviews) + 1)]


def test_optional_fields_hold_what_a_shop_would_send(reviews: list[dict[str, Any]]) -> None:
    """Sources, language and the year of creation are those that the README of the samples names."""
    assert {review["source"] for review in reviews} == {"app", "web", "mini-program"}
    assert {review["language"] for review in reviews} == {"zh"}
    year = range(1_767_225_600_000, 1_798_761_600_000)
    assert all(review["created_at"] in year for review in reviews)
    assert all(re.fullmatch(r"[a-z]+-\d+", review["product_id"]) for review in reviews)


def test_categories_and_sentiments_are_balanced(reviews: list[dict[str, Any]]) -> None:
    """Every category has at least 36 reviews of both sentiments, and about 60 % of all are positive, 35 % negative."""
    assert set(reviews[0]["attributes"]) == {"category", "sentiment"}
    pairs = Counter((review["attributes"]["category"], review["attributes"]["sentiment"]) for review in reviews)
    assert {category for category, _ in pairs} == CATEGORIES
    for category in CATEGORIES:
        assert sum(count for (name, _), count in pairs.items() if name == category) >= 36
    shares = Counter(review["attributes"]["sentiment"] for review in reviews)
    assert set(shares) == {"正向情感", "负向情感", "mixed"}
    assert shares["正向情感"] / len(reviews) == pytest.approx(0.60, abs=0.03)
    assert shares["负向情感"] / len(reviews) == pytest.approx(0.35, abs=0.03)


def test_texts_are_as_varied_as_people_type(reviews: list[dict[str, Any]]) -> None:
    """Short and long ones, line breaks, emoji, digits and full-width letters all occur."""
    texts = [review["text"] for review in reviews]
    assert min(map(len, texts)) >= 8
    assert sum(len(text) > 280 for text in texts) >= 3
    assert sum(60 <= len(text) <= 160 for text in texts) >= 15
    for kind in ("\n", "[0-9]", "[Ａ-Ｚａ-ｚ０-９]", "[\U0001f300-\U0001faff]"):
        assert any(re.search(kind, text) for text in texts), kind


def test_no_two_texts_are_alike(reviews: list[dict[str, Any]]) -> None:
    """No pair shares 60 % of its character pairs: these are sentences, not permutations of a template."""
    pairs = [(review["event_id"], {a + b for a, b in itertools.pairwise(review["text"])}) for review in reviews]
    for (name, ours), (other, theirs) in itertools.combinations(pairs, 2):
        assert len(ours & theirs) / len(ours | theirs) < 0.6, (name, other)


@pytest.fixture(scope="module")
def annotated() -> list[dict[str, Any]]:
    lines = shipped("schemas/samples/product_features.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_gold_facts_are_of_the_reviews_and_of_the_task(
    reviews: list[dict[str, Any]], annotated: list[dict[str, Any]]
) -> None:
    """Each line is a review behind a sign for the product as a whole; its spans stand where they say."""
    (aspect, opinions), *others = load_tasks([])["product_features"].schema.items()
    assert opinions
    assert not others
    texts = {review["event_id"]: "#" + review["text"] for review in reviews}
    ids = [line["id"] for line in annotated]
    assert ids == sorted(set(ids))
    assert len(ids) >= 300
    for line in annotated:
        assert line["text"] == texts[line["id"]]
        assert line["schema"] == {aspect: opinions}
        for first, second in line["info_list"]:
            assert (first["type"], second["type"] in opinions) == (aspect, True)
            for part in (first, second):
                start, end = part["offset"]
                assert part["span"] == line["text"][start:end] != "", (line["id"], part)
            assert second["offset"][0] > 0, "an opinion is words of the review"


def test_the_readme_states_the_true_counts(reviews: list[dict[str, Any]], annotated: list[dict[str, Any]]) -> None:
    """The numbers in the samples' README are those of the files."""
    readme = shipped("schemas/samples/README.md").read_text(encoding="utf-8")
    shares = Counter(review["attributes"]["sentiment"] for review in reviews)
    assert f"{len(reviews)} Chinese shop reviews" in readme
    facts = sum(len(line["info_list"]) for line in annotated)
    assert f"the {facts:,} facts of the {len(annotated)} reviews" in readme
    assert f"{shares['正向情感']} positive, {shares['负向情感']} negative, {shares['mixed']} mixed" in readme
    lengths = sorted(len(review["text"]) for review in reviews)
    assert f"{lengths[0]} to {lengths[-1]} characters, the median {lengths[len(lengths) // 2]}" in readme
