"""Values that are the review."""

from __future__ import annotations

import pytest

from consumer.codecs.decoding import decode_value
from consumer.events import BadInput, ReviewEvent


def test_the_whole_value_is_the_review() -> None:
    """Nothing is trimmed: offsets count from the first byte's character."""
    assert decode_value(" 颜色正。\n".encode(), "text", "t-0-1") == ReviewEvent("t-0-1", " 颜色正。\n")


@pytest.mark.parametrize(("value", "reason"), [(b"", "EmptyText"), (b" \n", "EmptyText"), (b"ok\xe5", "InvalidUtf8")])
def test_what_is_no_text_is_refused(value: bytes, reason: str) -> None:
    """Empty values and broken UTF-8 are bad input."""
    with pytest.raises(BadInput) as caught:
        decode_value(value, "text", "t-0-1")
    assert caught.value.reason == reason
