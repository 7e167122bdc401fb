from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.dead_letters import STACK_TRACE_BYTES, class_name, stack_trace
from consumer.events import BadInput


def raised(message: str, depth: int = 0) -> BadInput:
    def fail(left: int) -> None:
        if left:
            fail(left - 1)
        try:
            json.loads("secret")
        except ValueError as error:
            raise BadInput("decode", "InvalidJson", message) from error

    try:
        fail(depth)
    except BadInput as bad:
        return bad
    raise AssertionError


def test_a_class_has_its_full_name() -> None:
    """No exception has none."""
    assert class_name(raised("x")) == "consumer.events.BadInput"
    assert class_name(raised("x").__cause__) == "json.decoder.JSONDecodeError"
    assert class_name(None) is None


def test_a_stack_trace_says_where_and_what_but_nothing_of_what_lies_behind() -> None:
    """The message of a library's own exception may quote a review."""
    text = stack_trace(raised("no JSON"))
    assert ", in fail" in text
    assert text.endswith("consumer.events.BadInput: no JSON")
    assert "JSONDecodeError" not in text


@given(st.text(max_size=1500), st.integers(0, 60))
def test_a_long_one_keeps_its_end(message: str, depth: int) -> None:
    """At most 4 KiB of UTF-8, in which the place of the failure is."""
    text = stack_trace(raised(message, depth))
    assert len(text.encode()) <= STACK_TRACE_BYTES
    assert text.endswith(message.encode(errors="replace").decode()[-100:])


def test_an_exception_that_was_never_raised_has_its_message() -> None:
    """Refusals are sometimes made and passed on."""
    assert stack_trace(BadInput("produce", "ResultTooLarge", "big")) == "consumer.events.BadInput: big"
