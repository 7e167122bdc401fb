"""Which cells of a logit matrix can mean anything, and how the compact signature picks them, as a graph.

Everything of ``[B, L, L]`` is bool or float32; what follows the selection has one row per cell found and is small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

if TYPE_CHECKING:
    from consumer.serving.answers import GraphContract

Tensor = Any
"""A tf.Tensor: TensorFlow publishes no types."""


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
    shape = tf.shape(logits, out_type=tf.int64)
    batch = shape[0]
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
    ones = tf.ones_like(owner, dtype=tf.float32)
    return tf.cast(tf.math.unsorted_segment_sum(ones, owner, batch), tf.int64)
