"""The encoder and its head as a TensorFlow graph: prompt arrays in, the logit matrix out.

Folded when it is built: position keys and queries (they do not depend on the input), the score's scale (into the query
projection), and the pairs of the rotary head (even features first; a dot product does not mind the order).

Two rules hold for everything of B * L * L elements or more. No int32 arithmetic: on a GPU TensorFlow keeps int32 in
host memory and copies it at every call, so indexes are computed in float32 (exact below 2^24) and cast once, for the
gather. And nothing per head that all heads share: the mask and the gather's indexes have no head dimension.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from consumer.model.checkpoint import Checkpoint
    from consumer.model.encoder_config import EncoderConfig

Tensor = Any
"""A tf.Tensor: TensorFlow publishes no types."""

Precision = Literal["float32", "bfloat16", "float16"]
"""Of the encoder's matrix products. All else (embeddings, normalisation, softmax, positions, head) stays float32."""

_MASKED: Final = -1e9
"""Added to scores of tokens that must not be seen: exp() of it is exactly 0, and it is far from float32's limit."""

_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "gelu": lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5))),
    "relu": tf.nn.relu,
    "tanh": tf.math.tanh,
}


class Dense(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """``x @ weight + bias`` for x float32 ``[N, in]``; the product alone runs in ``precision``."""

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], precision: Precision, name: str) -> None:
        """``weight`` is ``[in, out]``."""
        super().__init__(name)
        self.weight = tf.Variable(weight, dtype=precision, trainable=False, name="weight")
        self.bias = tf.Variable(bias, trainable=False, name="bias")

    def __call__(self, x: Tensor) -> Tensor:
        """Return float32 ``[N, out]``."""
        product = tf.matmul(tf.cast(x, self.weight.dtype), self.weight)
        return tf.nn.bias_add(tf.cast(product, tf.float32), self.bias)


class Norm(tf.Module):  # type: ignore[misc]
    """Layer normalisation over the last axis, in float32."""

    def __init__(self, checkpoint: Checkpoint, source: str, name: str) -> None:
        """``source`` is the checkpoint's prefix of the two tensors."""
        super().__init__(name)
        self.gain = tf.Variable(checkpoint.weights[f"{source}.weight"], trainable=False, name="gain")
        self.bias = tf.Variable(checkpoint.weights[f"{source}.bias"], trainable=False, name="bias")
        self._epsilon = checkpoint.config.layer_norm_eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return float32 of the same shape."""
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
        return (x - mean) * (tf.math.rsqrt(variance + self._epsilon) * self.gain) + self.bias


class Geometry:
    """What all layers of one call share: sizes, the additive mask and where each pair finds its position scores.

    ``positions``, ``segment`` and ``valid`` are float32 ``[B, L]``, pads already zero in ``positions``.
    """

    def __init__(self, config: EncoderConfig, segment: Tensor, positions: Tensor, valid: Tensor) -> None:
        self.batch, self.length = tf.unstack(tf.shape(positions))
        self.mask = _additive_mask(segment, valid)[:, None]
        """Float32 ``[B, 1, L, L]``, 0 where row sees column."""
        farthest = tf.reduce_max(positions)
        # Only the embeddings of distances that occur are multiplied: at 64 tokens that is a quarter of 512.
        lowest, highest = tf.unstack(_bucket(tf.stack([-farthest, farthest]), config))
        self.first = tf.cast(lowest, tf.int32)
        self.width = tf.cast(highest - lowest, tf.int32) + 1
        token = tf.range(tf.cast(self.length, tf.float32)) * (highest - lowest + 1.0)
        delta = _bucket(positions[:, :, None] - positions[:, None, :], config) - lowest
        # The table of position scores has a row for every (token, distance): the row's token is the query for
        # content-to-position, and the key for position-to-content.
        self.query_rows = tf.cast(delta + token[None, :, None], tf.int32)
        self.key_rows = tf.cast(delta + token[None, None, :], tf.int32)


class Layer(tf.Module):  # type: ignore[misc]
    """One transformer layer with disentangled attention (docs/extraction.md, section 9)."""

    def __init__(self, checkpoint: Checkpoint, index: int, relative: NDArray[np.float32], precision: Precision) -> None:
        """Fold and take the tensors of layer ``index``. ``relative`` are the position embeddings ``[2S, h]``."""
        super().__init__(f"layer_{index}")
        config, weights = checkpoint.config, checkpoint.weights
        source = f"plm.encoder.layer.{index}"
        scale = np.float32(1.0 / math.sqrt(config.head_size * config.score_terms))
        own = f"{source}.attention.self"
        kinds = (("query", scale), ("key", np.float32(1)), ("value", np.float32(1)))
        self.project = Dense(
            np.concatenate([weights[f"{own}.{kind}_proj.weight"].T * factor for kind, factor in kinds], axis=1),
            np.concatenate([weights[f"{own}.{kind}_proj.bias"] * factor for kind, factor in kinds]),
            precision,
            "project",
        )
        self.attention_out = dense_of(checkpoint, f"{source}.attention.output.dense", precision, "attention_out")
        self.attention_norm = Norm(checkpoint, f"{source}.attention.output.LayerNorm", "attention_norm")
        self.widen = dense_of(checkpoint, f"{source}.intermediate.dense", precision, "widen")
        self.narrow = dense_of(checkpoint, f"{source}.output.dense", precision, "narrow")
        self.norm = Norm(checkpoint, f"{source}.output.LayerNorm", "norm")
        self._act = _ACTIVATIONS[config.hidden_act]
        self._heads, self._size = config.heads, config.head_size

        def positions(kind: str, used: bool, scale: np.float32) -> Any:
            """Variable ``[A, d, 2S]``: one projection of all relative position embeddings, or None."""
            if not used:
                return None
            name = f"{kind}_proj" if config.share_att_key else f"pos_{kind}_proj"
            projected = (relative @ weights[f"{own}.{name}.weight"].T + weights[f"{own}.{name}.bias"]) * scale
            by_head = projected.reshape(2 * config.span, config.heads, config.head_size).transpose(1, 2, 0)
            return tf.Variable(by_head, trainable=False, name=f"{name}_positions")

        # Not scaled: the queries they meet are. The position queries meet keys, which are not.
        self.position_keys = positions("key", config.content_to_position, np.float32(1))
        self.position_queries = positions("query", config.position_to_content, scale)

    def __call__(self, x: Tensor, geometry: Geometry) -> Tensor:
        """Map float32 ``[B * L, h]`` to the same shape."""
        x = self.attention_norm(x + self.attention_out(self._attend(x, geometry)))
        return self.norm(x + self.narrow(self._act(self.widen(x))))

    def _attend(self, x: Tensor, geometry: Geometry) -> Tensor:
        """Products of tokens with tokens stay float32: rounded scores move more facts than rounded layers do."""
        shape = [geometry.batch, geometry.length, 3, self._heads, self._size]
        parts = tf.transpose(tf.reshape(self.project(x), shape), [2, 0, 3, 1, 4])
        query, key, value = tf.unstack(parts, num=3)  # each [B, A, L, d]
        scores = tf.matmul(query, key, transpose_b=True) + geometry.mask
        terms = [
            _gather_heads(content, table, rows, geometry)
            for content, table, rows in (
                (query, self.position_keys, geometry.query_rows),
                (key, self.position_queries, geometry.key_rows),
            )
            if table is not None
        ]
        if terms:
            scores += tf.transpose(tf.add_n(terms), [0, 3, 1, 2])
        context = tf.matmul(tf.nn.softmax(scores), value)
        return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, self._heads * self._size])


class Encoder(tf.Module):  # type: ignore[misc]
    """Embeddings, layers, the optional convolution, and the rotary head that makes the logits."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision = "float32") -> None:
        """Fold the checkpoint's weights into variables."""
        super().__init__("encoder")
        self._config = config = checkpoint.config
        weights = checkpoint.weights

        def table(name: str, used: bool) -> Any:
            source = f"plm.embeddings.{name}_embeddings.weight"
            return tf.Variable(weights[source], trainable=False, name=name) if used else None

        relative = _relative_embeddings(checkpoint)
        self.words = table("word", True)
        self.absolute_positions = table("position", config.position_biased_input)
        self.token_types = table("token_type", config.type_vocab_size > 0)
        self.widen_embedding: Any = None
        if config.embedding_size != config.hidden_size:
            weight = weights["plm.embeddings.embed_proj.weight"].T
            self.widen_embedding = tf.Variable(weight, trainable=False, name="widen_embedding")
        self.embedding_norm = Norm(checkpoint, "plm.embeddings.LayerNorm", "embedding_norm")
        self.layers = [Layer(checkpoint, index, relative, precision) for index in range(config.layers)]
        self.convolution: Any = None
        if config.conv_kernel_size:
            kernel, bias = _dense_kernel(checkpoint), weights["plm.encoder.conv.conv.bias"]
            self.convolution = Dense(kernel, bias, precision, "convolution")
            self.convolution_norm = Norm(checkpoint, "plm.encoder.conv.LayerNorm", "convolution_norm")
        halves = np.concatenate([np.arange(0, config.hidden_size, 2), np.arange(1, config.hidden_size, 2)])
        self.head = Dense(
            np.concatenate([weights["ffnq.weight"][halves].T, weights["ffnk.weight"][halves].T], axis=1),
            np.concatenate([weights["ffnq.bias"][halves], weights["ffnk.bias"][halves]]),
            "float32",
            "head",
        )
        self.frequencies = tf.Variable(weights["rotary_emb.freqs"], trainable=False, name="frequencies")

    def logits(self, input_ids: Tensor, segment: Tensor, positions: Tensor, valid: Tensor, in_text: Tensor) -> Tensor:
        """Return float32 ``[B, L, L]``; rows and columns of pads mean nothing, but are finite.

        ``input_ids`` int32, the others float32, all ``[B, L]``; ``valid`` and ``in_text`` are 0 or 1.
        """
        positions = positions * valid
        geometry = Geometry(self._config, segment, positions, valid)
        embedded = self._embed(input_ids, positions, valid, in_text)
        x = tf.reshape(embedded, [-1, self._config.hidden_size])
        for index, layer in enumerate(self.layers):
            x = layer(x, geometry)
            if index == 0 and self.convolution is not None:
                x = self._convolve(x, embedded, geometry)
        return self._score(x, positions, geometry)

    def _embed(self, input_ids: Tensor, positions: Tensor, valid: Tensor, in_text: Tensor) -> Tensor:
        x = tf.gather(self.words, input_ids)
        if self.absolute_positions is not None:
            x += tf.gather(self.absolute_positions, tf.cast(positions, tf.int32))
        if self.token_types is not None:
            x += tf.where(in_text[:, :, None] > 0, self.token_types[1], self.token_types[0])
        if self.widen_embedding is not None:
            x = tf.tensordot(x, self.widen_embedding, 1)
        # Zero pads (Q16): a convolution would otherwise see them beside the last token.
        return self.embedding_norm(x) * valid[:, :, None]

    def _convolve(self, x: Tensor, embedded: Tensor, geometry: Geometry) -> Tensor:
        width = self._config.conv_kernel_size
        padded = tf.pad(embedded, [[0, 0], [width // 2, width // 2], [0, 0]])
        taps = tf.concat([padded[:, tap : tap + geometry.length] for tap in range(width)], axis=2)
        flat = tf.reshape(taps, [-1, width * self._config.hidden_size])
        return self.convolution_norm(x + _ACTIVATIONS[self._config.conv_act](self.convolution(flat)))

    def _score(self, x: Tensor, positions: Tensor, geometry: Geometry) -> Tensor:
        half = self._config.hidden_size // 2
        shape = [geometry.batch, geometry.length, 4, half]
        query_even, query_odd, key_even, key_odd = tf.unstack(tf.reshape(self.head(x), shape), axis=2)
        angle = positions[:, :, None] * self.frequencies
        cos, sin = tf.math.cos(angle), tf.math.sin(angle)

        def rotate(even: Tensor, odd: Tensor) -> Tensor:
            return tf.concat([even * cos - odd * sin, odd * cos + even * sin], axis=2)

        return tf.matmul(rotate(query_even, query_odd), rotate(key_even, key_odd), transpose_b=True)


def dense_of(checkpoint: Checkpoint, source: str, precision: Precision, name: str) -> Dense:
    """Take a PyTorch linear layer (``[out, in]``) over."""
    return Dense(checkpoint.weights[f"{source}.weight"].T, checkpoint.weights[f"{source}.bias"], precision, name)


def _gather_heads(content: Tensor, table: Any, rows: Tensor, geometry: Geometry) -> Tensor:
    """Position scores of every pair, ``[B, L, L, A]``, from ``content`` ``[B, A, L, d]`` and ``table`` ``[A, d, 2S]``.

    Heads are innermost so that one index fetches the scores of all heads in one piece: 2.5 times as fast on a CPU at
    512 tokens as an index per head, and the index is read once.
    """
    present = table[:, :, geometry.first : geometry.first + geometry.width]
    scores = tf.transpose(tf.matmul(content, present), [0, 2, 3, 1])
    flat = tf.reshape(scores, [geometry.batch, geometry.length * geometry.width, table.shape[0]])
    return tf.gather(flat, rows, axis=1, batch_dims=1)


def _additive_mask(segment: Tensor, valid: Tensor) -> Tensor:
    """Float32 ``[B, L, L]``: 0 where row sees column (docs/extraction.md, section 7), _MASKED elsewhere."""
    prefix = tf.math.floor(segment / 256.0)
    kind = segment - 256.0 * prefix
    prefix_row, prefix_column, kind_row, kind_column = (
        each for x in (prefix, kind) for each in (x[:, :, None], x[:, None, :])
    )
    same_prefix = tf.equal(prefix_row, prefix_column)
    same_type = tf.equal(kind_row, kind_column) | (kind_row <= 0.0) | (kind_column <= 0.0)
    sees = (prefix_row <= 0.0) | (prefix_column <= 0.0) | (same_prefix & same_type)
    return tf.where(sees & (valid[:, None, :] > 0.0), 0.0, _MASKED)


def _bucket(distance: Tensor, config: EncoderConfig) -> Tensor:
    """Row of the position embeddings for each distance (docs/extraction.md, section 9), both float32."""
    span = float(config.span)
    if not config.log_buckets:
        return tf.clip_by_value(distance + span, 0.0, 2.0 * span - 1.0)
    middle, reach = config.span // 2, config.max_relative_positions  # beyond reach nothing changes any more
    near = np.arange(1, reach + 1)
    # In float32 as in PyTorch: where the quotient is a whole number, its last bit decides the bucket.
    quotient = np.log(near.astype(np.float32) / np.float32(middle)) / np.log(np.float32((reach - 1) / middle))
    half = np.where(near <= middle, near, np.ceil(quotient * np.float32(middle - 1)) + middle)
    table = np.clip(np.concatenate([-half[::-1], [0], half]) + span, 0, 2 * span - 1).astype(np.float32)
    return tf.gather(table, tf.cast(tf.clip_by_value(distance, -float(reach), float(reach)) + float(reach), tf.int32))


def _relative_embeddings(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Relative position embeddings ``[2S, h]``, normalised (in float64) where the configuration asks for it."""
    config, weights = checkpoint.config, checkpoint.weights
    stored = weights["plm.encoder.rel_embeddings.weight"]
    if not config.normalize_positions:
        return stored
    centred = stored - stored.mean(axis=1, keepdims=True, dtype=np.float64)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + config.layer_norm_eps)
    gain, bias = weights["plm.encoder.LayerNorm.weight"], weights["plm.encoder.LayerNorm.bias"]
    return np.asarray(scaled * gain + bias, dtype=np.float32)


def _dense_kernel(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """The convolution as one product over the concatenated taps: ``[width * h, h]``, zero between groups."""
    config = checkpoint.config
    kernel = checkpoint.weights["plm.encoder.conv.conv.weight"]  # [out, in of its group, width]
    size = config.hidden_size // config.conv_groups
    full = np.zeros((config.conv_kernel_size, config.hidden_size, config.hidden_size), np.float32)
    for group in range(config.conv_groups):
        part = slice(group * size, (group + 1) * size)
        full[:, part, part] = kernel[part].transpose(2, 1, 0)
    return full.reshape(-1, config.hidden_size)
