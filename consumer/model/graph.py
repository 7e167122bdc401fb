"""The module that is exported: both signatures over one encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import tensorflow as tf

from consumer.model.encoder import Encoder
from consumer.model.selection import Roles, roles, select

if TYPE_CHECKING:
    from consumer.model.checkpoint import Checkpoint
    from consumer.model.encoder import Precision
    from consumer.serving.answers import GraphContract

Tensor = Any
"""A tf.Tensor: TensorFlow publishes no types."""

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
        """``agreed`` is what the client has in its bundle; its hash is returned with every row."""
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
        logits, tokens = self._run(input_ids, segment, position_ids, length, text_start)
        cells, scores, count = select(logits, tokens, self._agreed.cells_per_window)
        return {"cells": cells, "scores": scores, "count": count, "contract": self._stamp(length)}

    def _matrix(
        self, input_ids: Tensor, segment: Tensor, position_ids: Tensor, length: Tensor, text_start: Tensor
    ) -> dict[str, Tensor]:
        logits, _ = self._run(input_ids, segment, position_ids, length, text_start)
        return {"logits": logits, "contract": self._stamp(length)}

    def _run(
        self, input_ids: Tensor, segment: Tensor, position_ids: Tensor, length: Tensor, text_start: Tensor
    ) -> tuple[Tensor, Roles]:
        segment = tf.cast(segment, tf.float32)
        tokens = roles(input_ids, segment, length, text_start, self._agreed)
        logits = self.encoder.logits(
            tf.where(tokens.valid, input_ids, tf.zeros_like(input_ids)),
            segment,
            tf.cast(position_ids, tf.float32),
            tf.cast(tokens.valid, tf.float32),
            tf.cast(tokens.in_text, tf.float32),
        )
        return logits, tokens

    def _stamp(self, length: Tensor) -> Tensor:
        return tf.fill([tf.shape(length)[0], 1], tf.constant(self._agreed.contract, tf.int32))
