"""The bag of character n-grams."""

from __future__ import annotations

import pytest

from consumer.evaluation.baseline import FOLDS, NaiveBayes, cross_validated, fold_of

GOOD, BAD = frozenset({"好评"}), frozenset({"差评"})
PRAISE = [f"很好用{word}" for word in ("的手机", "的杯子", "，喜欢", "，推荐")]
BLAME = [f"太差了{word}" for word in ("的手机", "的杯子", "，退货", "，后悔")]


def trained() -> NaiveBayes:
    return NaiveBayes([*PRAISE, *BLAME], [GOOD] * 4 + [BAD] * 4, single=True)


def test_it_learns_which_characters_go_with_a_class() -> None:
    """And how sure it is: a text of both is a toss-up."""
    good, bad, both = trained().predict(["很好用", "太差了", "很好用太差了"])
    assert (set(good), set(bad)) == ({"好评"}, {"差评"})
    assert min(good["好评"], bad["差评"]) > 0.99
    assert next(iter(both.values())) == pytest.approx(0.5, abs=0.1)


def test_what_it_never_saw_leaves_the_prior() -> None:
    """Unknown characters and an empty text: the more frequent class."""
    model = NaiveBayes([*PRAISE, *BLAME[:1]], [GOOD] * 4 + [BAD], single=True)
    for found in model.predict(["ཀཁག", "", "𝕏"]):
        assert found == {"好评": pytest.approx(5 / 7)}


def test_it_is_the_textbook_s_multinomial_naive_bayes() -> None:
    """By hand: a and b, b twice in two texts; of the n-grams a, b, ab the share (1 + 0.1) / (3 + 0.3) and so on."""
    model = NaiveBayes(["ab", "b", "b"], [GOOD, BAD, BAD], single=True)
    # 好评: prior 2/5; a, b, ab have 1.1/3.3 each. 差评: prior 3/5; b has 2.1/2.3, a and ab 0.1/2.3.
    good, bad = 2 / 5 * (1.1 / 3.3), 3 / 5 * (2.1 / 2.3)
    (found,) = model.predict(["b"])
    assert found == {"差评": pytest.approx(bad / (good + bad))}


def test_case_does_not_matter_and_what_no_worker_reads_is_not_learned() -> None:
    """A text has at most 10,000 characters."""
    model = NaiveBayes(["good", "BAD", "。" * 10_000 + "好"], [GOOD, BAD, BAD], single=True)
    assert [set(found) for found in model.predict(["GOOD", "bad"])] == [{"好评"}, {"差评"}]
    assert model.predict(["好"]) == model.predict([""])


def test_n_grams_of_two_and_three_characters_count() -> None:
    """The same characters in another order are another text."""
    model = NaiveBayes(["不好", "好不"], [BAD, GOOD], single=True)
    assert [set(found) for found in model.predict(["不好", "好不"])] == [{"差评"}, {"好评"}]
    model = NaiveBayes(["不好不", "好不好", "不好", "好不"], [BAD, GOOD, GOOD, BAD], single=True)
    assert set(model.predict(["不好不"])[0]) == {"差评"}


def test_several_labels_are_decided_one_by_one() -> None:
    """At least the likeliest is given."""
    texts = ["快递快", "快递快", "价格便宜", "快递快价格便宜", *["客服好"] * 4]
    gold = [frozenset(names.split()) for names in ("物流", "物流", "价格", "物流 价格", *["客服"] * 4)]
    model = NaiveBayes(texts, gold, single=False)
    one, two, none = model.predict(["快递快", "快递快价格便宜", "ཀ"])
    assert (set(one), set(two), len(none)) == ({"物流"}, {"物流", "价格"}, 1)


@pytest.mark.parametrize(
    ("gold", "found"), [([GOOD, BAD], {"好评"}), ([frozenset(), frozenset()], set())], ids=["no-words", "no-classes"]
)
def test_with_nothing_to_learn_from_it_still_answers(gold: list[frozenset[str]], found: set[str]) -> None:
    """Empty texts, or labels for none of them."""
    model = NaiveBayes(["", ""], gold, single=bool(found))
    assert [set(each) for each in model.predict(["很好用"])] == [found]


def test_no_text_is_predicted_by_a_classifier_that_saw_it() -> None:
    """Each text has a class of its own: whoever had seen it would know it. Equal texts are in one fold."""
    texts = [f"{number:04d}" * 3 for number in range(100)] * 2
    gold = [frozenset({f"c{text}"}) for text in texts]
    predicted = cross_validated(texts, gold, single=True)
    assert all(found and not set(found) & names for found, names in zip(predicted, gold, strict=True))
    assert len({fold_of(text) for text in texts}) == FOLDS


def test_cross_validation_learns_and_repeats_itself() -> None:
    """The same folds in every run."""
    texts = [f"{text}{number}" for number in range(20) for text in (*PRAISE, *BLAME)]
    gold = ([GOOD] * 4 + [BAD] * 4) * 20
    predicted = cross_validated(texts, gold, single=True)
    assert [set(found) for found in predicted] == gold
    assert predicted == cross_validated(texts, gold, single=True)
