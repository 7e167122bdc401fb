"""Patterns of topic names: what is taken, and that it means what it means to librdkafka and the brokers."""

from __future__ import annotations

import ctypes
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.config.topic_patterns import MOST_GROUPS, MOST_POSITIONS, PatternRefused, TopicPattern

REG_EXTENDED = 1

single = st.sampled_from(["a", "b", "0", "-", "_", r"\.", r"\-", ".", "[ab]", "[^a]", "[a-c_]", "[^.0-9]", "[.-]"])
repeats = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}"])
bodies = st.recursive(
    single | st.tuples(single, repeats).map("".join),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, repeats).map("({0[0]}){0[1]}".format),
    ),
    max_leaves=8,
)
names = st.text("abc0.-_", min_size=1, max_size=7)


@given(bodies, st.lists(names, min_size=20, max_size=20))
def test_it_matches_whole_names_as_a_regular_expression_does(body: str, topics: list[str]) -> None:
    """What is taken is read alike by every engine, so Python's is as good a witness as any."""
    pattern = TopicPattern(f"^{body}$")
    wanted = re.compile(body)
    assert [pattern.matches(topic) for topic in topics] == [bool(wanted.fullmatch(topic)) for topic in topics]
    assert re.fullmatch(r"\^\(.*\)\$", pattern.subscription)
    subscribed = re.compile(pattern.subscription)
    assert [pattern.matches(topic) for topic in topics] == [bool(subscribed.search(topic)) for topic in topics]


@given(bodies, st.lists(names, min_size=20, max_size=20))
def test_it_matches_as_the_system_does_for_librdkafka(body: str, topics: list[str]) -> None:
    """POSIX's extended expressions, found anywhere in the name."""
    pattern = TopicPattern(f"^{body}$")
    library, compiled = ctypes.CDLL(None), ctypes.create_string_buffer(1024)
    assert library.regcomp(compiled, pattern.subscription.encode(), REG_EXTENDED) == 0
    found = [library.regexec(compiled, topic.encode(), 0, None, 0) == 0 for topic in topics]
    library.regfree(compiled)
    assert found == [pattern.matches(topic) for topic in topics]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"^shop\.", r"write ^shop\..*$"),
        ("^", "whole names"),
        ("^$", "whole names"),
        (r"^shop\$", "backslash"),
        (r"^shop\d+$", "write [0-9]"),
        (r"^\w+$", "write [A-Za-z0-9_]"),
        (r"^a\bc$", "read alike"),
        ("^(?i)shop$", "write the names out"),
        ("^(?!shop)a$", "look-around"),
        ("^(?:a|b)$", "look-around"),
        ("^(a$", "closing parenthesis"),
        ("^a)$", "closes no parenthesis"),
        ("^a||b$", "alternative is missing"),
        ("^()$", "alternative is missing"),
        ("^a**$", "repeats a repeat"),
        ("^a+?$", "repeats a repeat"),
        ("^a{1,2}{3}$", "repeats a repeat"),
        ("^a{3,2}$", "the less first"),
        ("^a{0}$", "less than once"),
        ("^a{,3}$", "can stand in no topic name"),
        ("^a{1000}$", "can stand in no topic name"),
        ("^*a$", "can stand in no topic name"),
        ("^[[:alpha:]]$", "read alike"),
        (r"^[\.]$", "read alike"),
        ("^[]a]$", "read alike"),
        ("^[A-z]$", "range that is none"),
        ("^[z-a]$", "range that is none"),
        ("^[a-c-e]$", "range that is none"),
        ("^[^A-Za-z0-9._-]$", "matches nothing"),
        ("^shop reviews$", "can stand in no topic name"),
        ("^店$", "can stand in no topic name"),
        ("^a^b$", "can stand in no topic name"),
        ("^a$b$", "can stand in no topic name"),
        ("^a{999}b{999}$", f"more than {MOST_POSITIONS}"),
        ("^" + "(" * 300 + "a" + ")" * 300 + "$", f"more than {MOST_GROUPS} groups"),
    ],
)
def test_what_is_not_read_alike_everywhere_is_refused_with_the_way_out(pattern: str, words: str) -> None:
    """POSIX, RE2 and Python differ in most of it."""
    with pytest.raises(PatternRefused) as caught:
        TopicPattern(pattern)
    assert words in str(caught.value)
    assert caught.value.fix


def test_no_name_makes_matching_slow() -> None:
    """Whoever may create topics chooses names; an engine that goes back and forth would take years for this one."""
    pattern = TopicPattern("^(a*)*(.*a.*b.*)*(a|a|[ab])*x$")
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    found = pattern.matches("ab" * 124)
    sys.setprofile(None)
    assert not found
    assert calls < 20_000


@pytest.mark.parametrize(
    ("pattern", "internal"),
    [
        (r"^.*\.reviews$", True),
        (r"^[^_].*\.reviews$", False),
        (r"^shop\..*$", False),
        ("^_?_?a$", True),
        ("^_a$", False),
        ("^(shop|_+x)$", True),
        ("^(a|b)?_{2}c$", True),
        ("^a?_b$", False),
    ],
)
def test_whether_it_may_match_topics_of_kafkas_own(pattern: str, internal: bool) -> None:
    """Told from the pattern, whatever topics there are."""
    assert TopicPattern(pattern).may_begin_with("__") is internal
