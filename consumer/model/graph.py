"""The module that is exported: both signatures over one encoder, and the selection of cells for the compact one.

Everything of ``[B, L, L]`` is bool or float32; what follows the selection has one row per cell found and is small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import tensorflow as tf

from consumer.extraction.window import Cells
from consumer.model.encoder import Encoder, Precision, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from consumer.model.checkpoint import Checkpoint
    from consumer.serving.tensors import GraphContract

INPUTS: Final = (
    ("input_ids", (None, None)),
    ("segment", (None, None)),
    ("position_ids", (None, None)),
    ("length", (None, 1)),
    ("text_start", (None, 1)),
)
"""Name and shape of every input, all int32. B and L are free."""

SERVING: Final = "serving_default"
DENSE: Final = "dense"


class RexUniNLU(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """Answers padded batches of windows. Tokens at or after ``length`` change nothing, whatever they hold."""

    def __init__(self, checkpoint: Checkpoint, agreed: GraphContract, precision: Precision = "float32") -> None:
        """``agreed`` is made from the client's bundle; its hash is returned with every row."""
        super().__init__("rexuninlu")
        self.encoder = Encoder(checkpoint, precision)
        self._agreed = agreed
        specs = [tf.TensorSpec(shape, tf.int32, name) for name, shape in INPUTS]
        self.serving_default = tf.function(self._cells, input_signature=specs)
        """cells int32 [B, K], scores float32 [B, K], count int32 [B, 1], contract int32 [B, 1]."""
        self.dense = tf.function(self._matrix, input_signature=specs)
        """logits float32 [B, L, L], contract int32 [B, 1]."""

    def _cells(
        self, input_ids: Tensor, segment: Tensor, position_ids: Tensor, length: Tensor, text_start: Tensor
    ) -> dict[str, Tensor]:
        logits, tokens, contract = self._run(input_ids, segment, position_ids, length, text_start)
        cells, scores, count = select(logits, tokens, self._agreed.cells_per_window)
        return {"cells": cells, "scores": scores, "count": count, "contract": contract}

    def _matrix(
        self, input_ids: Tensor, segment: Tensor, position_ids: Tensor, length: Tensor, text_start: Tensor
    ) -> dict[str, Tensor]:
        logits, _, contract = self._run(input_ids, segment, position_ids, length, text_start)
        return {"logits": logits, "contract": contract}

    def _run(
        self, input_ids: Tensor, segment: Tensor, position_ids: Tensor, length: Tensor, text_start: Tensor
    ) -> tuple[Tensor, Roles, Tensor]:
        segment = tf.cast(segment, tf.float32)
        tokens = roles(input_ids, segment, length, text_start, self._agreed)
        logits = self.encoder.logits(
            tf.where(tokens.valid, input_ids, tf.zeros_like(input_ids)),
            segment,
            tf.cast(position_ids, tf.float32),
            tf.cast(tokens.valid, tf.float32),
            tf.cast(tokens.in_text, tf.float32),
        )
        return logits, tokens, tf.fill([tf.shape(length)[0], 1], tf.constant(self._agreed.contract, tf.int32))


def unpacked(outputs: Mapping[str, NDArray[Any]]) -> list[Cells]:
    """Cells of each row of the compact signature's outputs; of those that found more than K, the first K."""
    return [
        Cells(packed[:count] >> 16, packed[:count] & 0xFFFF, scores[:count])
        for packed, scores, count in zip(
            outputs["cells"], outputs["scores"], outputs["count"][:, 0].tolist(), strict=True
        )
    ]


class Roles(NamedTuple):
    """What each token is, bool ``[B, L]``."""

    valid: Tensor
    """Not a pad."""
    in_text: Tensor
    """At or after ``text_start``."""
    text: Tensor
    """May start or end a span: in the text, and not the final [SEP] (Q3)."""
    type: Tensor
    """A [TYPE] marker of the hint: stands for its type."""
    marker: Tensor
    """The classification marker at the start of the text, where there is one; at most one token a row."""


def roles(input_ids: Tensor, segment: Tensor, length: Tensor, text_start: Tensor, agreed: GraphContract) -> Roles:
    """Classify tokens. ``input_ids`` int32, ``segment`` float32, both ``[B, L]``; the rest int32 ``[B, 1]``."""
    index = tf.range(tf.cast(tf.shape(input_ids)[1], tf.float32))[None, :]
    end, start = tf.cast(length, tf.float32), tf.cast(text_start, tf.float32)
    valid = (index < end) & (segment >= 0.0)
    in_text = valid & (index >= start)
    text = in_text & (index < end - 1.0)
    types = valid & (index < start) & (segment > 0.0) & tf.equal(input_ids, agreed.type)
    classifies = tf.reduce_any([tf.equal(input_ids, marker) for marker in sorted(agreed.classification)], axis=0)
    return Roles(valid, in_text, text, types, text & tf.equal(index, start) & classifies)


def select(logits: Tensor, tokens: Roles, cells_per_window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pick at most K cells a window, in an order that depends on nothing but the cells themselves.

    With a classification marker H its 1 + 2T cells (H, H), (H, t), (t, H) come first whatever their sign, t ascending;
    then come all other legal cells with a logit above 0, row by row. Returns ``cells`` int32 ``[B, K]`` (row << 16 |
    column, 0 fill), ``scores`` float32 ``[B, K]`` and ``count`` int32 ``[B, 1]``, the number of cells there are.
    """
    first, first_count = _marker_cells(tokens)
    found = tf.where((logits > 0.0) & _ordinary(tokens))  # [n, 3], sorted by window, row, column
    batch = tf.shape(logits, out_type=tf.int64)[0]
    found_count = _count(found[:, 0], batch)
    # A cell's place: its rank among all, less the cells of windows before, plus the marker's cells of its own window.
    ahead = tf.gather(tf.cumsum(found_count, exclusive=True) - first_count, found[:, 0])
    places = tf.concat([first[:, 3], tf.range(tf.shape(found, out_type=tf.int64)[0]) - ahead], axis=0)
    cells = tf.concat([first[:, :3], found], axis=0)
    kept = tf.where(places < cells_per_window)[:, 0]
    cells, places = tf.gather(cells, kept), tf.gather(places, kept)
    target = tf.stack([cells[:, 0], places], axis=1)
    packed = tf.scatter_nd(target, cells[:, 1] * 65536 + cells[:, 2], [batch, cells_per_window])
    scores = tf.scatter_nd(target, tf.gather_nd(logits, cells), [batch, cells_per_window])
    return tf.cast(packed, tf.int32), scores, tf.cast(first_count + found_count, tf.int32)[:, None]


def _ordinary(tokens: Roles) -> Tensor:
    """Bool ``[B, L, L]``: legal cells, less those that the marker claims."""

    def pair(row: Tensor, column: Tensor) -> Tensor:
        return row[:, :, None] & column[:, None, :]

    index = tf.range(tf.cast(tf.shape(tokens.text)[1], tf.float32))
    ordered = index[:, None] <= index[None, :]
    spans = pair(tokens.text, tokens.text) & ordered & ~pair(tokens.marker, tokens.marker)
    other = tokens.text & ~tokens.marker
    return spans | pair(other, tokens.type) | pair(tokens.type, other)


def _marker_cells(tokens: Roles) -> tuple[Tensor, Tensor]:
    """The marker's cells as int64 ``[m, 4]`` (window, row, column, place), and how many each window has, ``[B]``."""
    batch = tf.shape(tokens.marker, out_type=tf.int64)[0]
    marker = tf.where(tokens.marker)  # [(window, H)]
    window, place = marker[:, 0], marker[:, 1]
    marked = _count(window, batch)
    at = tf.scatter_nd(window[:, None], place, batch[None])  # H by window, 0 where there is none
    types = tf.where(tokens.type & tf.reduce_any(tokens.marker, axis=1, keepdims=True))  # [(window, t)] by window, t
    owner, kind = types[:, 0], types[:, 1]
    counts = _count(owner, batch)
    rank = tf.range(tf.shape(types, out_type=tf.int64)[0]) - tf.gather(tf.cumsum(counts, exclusive=True), owner)
    head = tf.gather(at, owner)
    cells = tf.concat(
        [
            tf.stack([window, place, place, tf.zeros_like(window)], axis=1),
            tf.stack([owner, head, kind, 1 + rank], axis=1),
            tf.stack([owner, kind, head, 1 + tf.gather(counts, owner) + rank], axis=1),
        ],
        axis=0,
    )
    return cells, marked + 2 * counts


def _count(owner: Tensor, batch: Tensor) -> Tensor:
    """How often each of 0 .. batch - 1 occurs, int64 ``[B]``. Summed in float32, which is exact for whole numbers."""
    return tf.cast(tf.math.unsorted_segment_sum(tf.ones_like(owner, dtype=tf.float32), owner, batch), tf.int64)
