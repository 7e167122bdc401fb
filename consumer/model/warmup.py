"""Requests that the server runs before it calls a version AVAILABLE: every shape that production may send.

With them the first real call of a shape is as fast as the second, and a batch that does not fit into memory fails at
load, when the old version still serves, instead of at noon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from consumer.batching.shapes import PADDED_LENGTHS
from consumer.model.graph import DENSE, SERVING
from consumer.serving.batches import pad
from consumer.serving.descriptors import PredictionLog
from consumer.serving.tensors import write_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from consumer.extraction.window import Window

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks, relative to the version: TFRecord of PredictionLog, at most 1000 of them."""


def warmup_shapes(max_tokens: int) -> Iterator[tuple[str, int, int]]:
    """Yield ``(signature, B, L)``: each padded length alone, the largest batch of the longest, and one dense call."""
    for length in PADDED_LENGTHS:
        yield SERVING, 1, length
    longest = PADDED_LENGTHS[-1]
    yield SERVING, max_tokens // longest, longest
    yield DENSE, 1, longest


def write_warmup(path: Path, model_name: str, windows: Sequence[Window], max_tokens: int, pad_id: int) -> int:
    """Write the file; rows repeat the sample windows where they fit. Returns the number of requests."""
    path.parent.mkdir(parents=True)
    shapes = list(warmup_shapes(max_tokens))
    shortest = min(windows, key=lambda window: window.length)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, rows, length in shapes:
            fitting = [window for window in windows if window.length <= length] or [_cut(shortest, length)]
            batch = [fitting[row % len(fitting)] for row in range(rows)]
            writer.write(_record(model_name, signature, batch, length, pad_id))
    return len(shapes)


def _cut(window: Window, length: int) -> Window:
    """The head of a window: what it means is of no interest here, only that its ids and positions are real."""
    return type(window)(
        window.input_ids[:length],
        window.position_ids[:length],
        window.segment[:length],
        min(window.text_start, length),
    )


def _record(model_name: str, signature: str, windows: Sequence[Window], length: int, pad_id: int) -> bytes:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, array in pad(windows, length, pad_id).items():
        write_content(request.inputs[name], array)
    record: bytes = log.SerializeToString()
    return record
