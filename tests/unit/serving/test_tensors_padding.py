"""Windows padded into tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.extraction.window import Window
from consumer.serving.tensors import pad


def window(length: int, text_start: int = 3) -> Window:
    """Positions as they are in prompts: neither sorted nor unique, the last one the largest."""
    ids = np.arange(100, 100 + length, dtype=np.int32)
    positions = np.concatenate((np.arange(length - 1, dtype=np.int32) % 5, np.array([40], np.int32)))
    segment = np.where(np.arange(length) < text_start, 257, 0).astype(np.int32)
    return Window(ids, positions, segment, text_start)


@given(st.lists(st.integers(4, 24), min_size=1, max_size=5))
def test_real_tokens_stay_and_the_rest_is_padding(lengths: list[int]) -> None:
    """Each row starts with its window; behind it stand the pad id, segment -1 and positions that count on."""
    inputs = pad([window(n) for n in lengths], 24, pad_id=7)
    assert set(inputs) == {"input_ids", "segment", "position_ids", "length", "text_start"}
    for row, length in enumerate(lengths):
        source = window(length)
        assert inputs["input_ids"][row].tolist() == source.input_ids.tolist() + [7] * (24 - length)
        assert inputs["segment"][row].tolist() == source.segment.tolist() + [-1] * (24 - length)
        assert inputs["position_ids"][row].tolist() == source.position_ids.tolist() + list(range(41, 65 - length))
    assert inputs["length"].tolist() == [[n] for n in lengths]
    assert inputs["text_start"].tolist() == [[3]] * len(lengths)
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int32)}


def test_a_window_that_does_not_fit_is_a_mistake_of_the_caller() -> None:
    """A window longer than the padded length is refused with both lengths."""
    with pytest.raises(ValueError, match="9 tokens does not fit a padded length of 8"):
        pad([window(9)], 8, pad_id=0)


def test_an_empty_batch_is_a_mistake_of_the_caller() -> None:
    """No windows, no batch."""
    with pytest.raises(ValueError, match="at least one window"):
        pad([], 8, pad_id=0)
