"""Windows to the tensors of the compact signature, padded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import IntArray, Window

PAD_SEGMENT = -1


def pad(windows: Sequence[Window], padded_length: int, pad_id: int) -> dict[str, IntArray]:
    """The inputs of both signatures, int32: three tensors [B, padded_length] and two [B, 1].

    Behind a window stand ``pad_id``, segment -1 and positions that count on from its last one, as the model was
    trained (specification section 8). Raises ValueError for no windows or one that is longer than ``padded_length``.
    """
    if not windows:
        raise ValueError("a batch needs at least one window")
    rows = len(windows)
    input_ids = np.full((rows, padded_length), pad_id, np.int32)
    segment = np.full((rows, padded_length), PAD_SEGMENT, np.int32)
    position_ids = np.empty((rows, padded_length), np.int32)
    counting = np.arange(1, padded_length + 1, dtype=np.int32)
    for row, window in enumerate(windows):
        length = window.length
        if length > padded_length:
            raise ValueError(f"a window of {length} tokens does not fit a padded length of {padded_length}")
        input_ids[row, :length] = window.input_ids
        segment[row, :length] = window.segment
        position_ids[row, :length] = window.position_ids
        position_ids[row, length:] = window.position_ids[-1] + counting[: padded_length - length]
    return {
        "input_ids": input_ids,
        "segment": segment,
        "position_ids": position_ids,
        "length": np.array([[window.length] for window in windows], np.int32),
        "text_start": np.array([[window.text_start] for window in windows], np.int32),
    }
