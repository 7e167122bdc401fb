from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.events import BadInput
from consumer.extraction.task import ExtractionLimits, legal_leaves, parse_schema, shown

LIMITS = ExtractionLimits(types_per_level=3, schema_depth=2)


@pytest.mark.parametrize(
    ("raw", "tree"),
    [
        ('{"属性": {"优点": null}, "店": {}}', {"属性": {"优点": None}, "店": None}),
        (b'{"a": null}', {"a": None}),
        ({" a ": {"\tb\n": None}}, {"a": {"b": None}}),
        ({"坏\ud800": None}, {"坏\ufffd": None}),
    ],
)
def test_accepted_schemas(raw: object, tree: object) -> None:
    """JSON text or mapping; names are stripped, empty mappings are leaves, lone surrogates replaced."""
    assert parse_schema(raw, LIMITS) == tree


@pytest.mark.parametrize(
    ("raw", "reason", "says"),
    [
        ("{", "InvalidSchema", "at character 1"),
        (b"\xff\xfe{", "InvalidSchema", "not JSON"),
        ("[1]", "InvalidSchema", "not a list"),
        ("null", "InvalidSchema", "not null"),
        (7, "InvalidSchema", "not a number"),
        ({}, "InvalidSchema", "names no type"),
        ({"": None}, "InvalidSchema", "empty"),
        ({" ": None}, "InvalidSchema", "empty"),
        ({3: None}, "InvalidSchema", "not a number"),
        ({"a": "b"}, "InvalidSchema", "'a' has text as children"),
        ({"a": []}, "InvalidSchema", "'a' has a list as children"),
        ({"a": None, " a": None}, "InvalidSchema", "twice"),
        ({"长" * 513: None}, "InvalidSchema", "513 characters"),
        ({"a": {"b": {"c": None}}}, "SchemaTooDeep", "2 levels"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "SchemaTooDeep", "nested"),
        (dict.fromkeys("abcd"), "SchemaTooWide", "4 types"),
        ({"a": dict.fromkeys("abc"), "b": dict.fromkeys("abc")}, "SchemaTooWide", "6 types in all"),
    ],
)
def test_refused_schemas(raw: object, reason: str, says: str) -> None:
    """Each is bad input with its own reason, and the message says what and where."""
    with pytest.raises(BadInput) as caught:
        parse_schema(raw, LIMITS)
    assert (caught.value.stage, caught.value.reason) == ("validate", reason)
    assert says in caught.value.message


def test_messages_show_the_beginning_of_a_name_only() -> None:
    """Names of inline schemas come from users."""
    with pytest.raises(BadInput) as caught:
        parse_schema({"秘" * 500: 1}, LIMITS)
    assert "秘" * 40 not in caught.value.message
    assert shown("x" * 41) == "x" * 39 + "…"
    assert shown("x" * 40) == "x" * 40


def test_legal_leaves_of_a_very_deep_tree() -> None:
    """Compatibility mode has no limit on depth, and no recursion that could run out."""
    tree: dict[str, Any] = {"x": None}
    for _ in range(5000):
        tree = {"y": tree}
    (path,) = legal_leaves(tree)
    assert len(path) == 5001


def anything() -> st.SearchStrategy[Any]:
    leaf = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
    return st.recursive(
        leaf, lambda inner: st.dictionaries(st.text(max_size=3) | st.integers(), inner) | st.lists(inner)
    )


@given(anything())
def test_any_value_is_a_schema_or_bad_input(raw: Any) -> None:
    """Whatever a producer writes into the schema field, nothing else is raised; what passes is a tree of names."""
    try:
        tree = parse_schema(raw, ExtractionLimits())
    except BadInput:
        return
    for path in legal_leaves(tree):
        assert all(name and name == name.strip() for name in path)
