"""The whole forward pass in plain numpy, one window at a time, in double precision.

The exported graph is compared with it, so it shares no arithmetic with the graph: nothing is folded, fused, sliced or
reordered here. In short, DeBERTa-v2 with positions and a 2-D mask from the prompt's segments, and a rotary head whose
dot products are the logits (docs/extraction.md, sections 6 to 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.extraction.window import Window
    from consumer.model.checkpoint import Checkpoint
    from consumer.model.encoder_config import EncoderConfig

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_erf = np.vectorize(math.erf, otypes=[np.float64])

_ACTIVATIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
}


def reference_logits(checkpoint: Checkpoint, window: Window) -> Array:
    """Logits ``[L, L]`` float64 of one window, every cell, legal or not."""
    forward = _Forward(checkpoint.config, checkpoint.weights)
    hidden = forward.encode(window)
    query, key = (forward.rotate(forward.linear(name, hidden), window.position_ids) for name in ("ffnq", "ffnk"))
    return query @ key.T


def visible(segment: NDArray[np.int32]) -> Mask:
    """Which tokens see which, bool ``[L, L]`` (docs/extraction.md, section 7).

    ``segment`` is prefix * 256 + type, 0 outside the hint.
    """
    prefix, kind = segment // 256, segment % 256
    rows, columns = np.meshgrid(np.arange(len(segment)), np.arange(len(segment)), indexing="ij")
    outside = (prefix[rows] == 0) | (prefix[columns] == 0)
    same_type = (kind[rows] == 0) | (kind[columns] == 0) | (kind[rows] == kind[columns])
    mask: Mask = outside | ((prefix[rows] == prefix[columns]) & same_type)
    return mask


def buckets(distance: NDArray[np.int64], config: EncoderConfig) -> NDArray[np.int64]:
    """Index of a relative position embedding for each distance (docs/extraction.md, section 9).

    The logarithm is taken in float32 as the reference does: at a bucket's border the last bit decides.
    """
    span = config.span
    bucket = distance
    if config.log_buckets:
        middle = span // 2
        far = np.maximum(np.abs(distance), middle).astype(np.float32)
        scale = np.log(np.float32((config.max_relative_positions - 1) / middle))
        steps = np.ceil(np.log(far / np.float32(middle)) / scale * np.float32(middle - 1)) + middle
        bucket = np.where(np.abs(distance) <= middle, distance, np.sign(distance) * steps.astype(np.int64))
    return np.clip(bucket + span, 0, 2 * span - 1)


@dataclass(frozen=True, slots=True)
class _Forward:
    """Hidden states ``[L, h]`` of one window, layer by layer."""

    config: EncoderConfig
    weights: Mapping[str, NDArray[np.float32]]

    def encode(self, window: Window) -> Array:
        embedded = self._embed(window)
        positions = window.position_ids.astype(np.int64)
        distances = buckets(positions[:, None] - positions[None, :], self.config)
        mask = visible(window.segment)
        relative = self._weight("plm.encoder.rel_embeddings.weight")
        if self.config.normalize_positions:
            relative = self._norm("plm.encoder.LayerNorm", relative)
        hidden = embedded
        for layer in range(self.config.layers):
            hidden = self._layer(f"plm.encoder.layer.{layer}", hidden, relative, distances, mask)
            if layer == 0 and self.config.conv_kernel_size:
                hidden = self._norm("plm.encoder.conv.LayerNorm", hidden + self._convolve(embedded))
        return hidden

    def _embed(self, window: Window) -> Array:
        config = self.config
        x = self._weight("plm.embeddings.word_embeddings.weight")[window.input_ids]
        if config.position_biased_input:
            x = x + self._weight("plm.embeddings.position_embeddings.weight")[window.position_ids]
        if config.type_vocab_size:
            types = (np.arange(window.length) >= window.text_start).astype(np.int64)
            x = x + self._weight("plm.embeddings.token_type_embeddings.weight")[types]
        if config.embedding_size != config.hidden_size:
            x = x @ self._weight("plm.embeddings.embed_proj.weight").T
        return self._norm("plm.embeddings.LayerNorm", x)

    def _layer(self, name: str, x: Array, relative: Array, distances: NDArray[np.int64], mask: Mask) -> Array:
        attended = self._attend(f"{name}.attention.self", x, relative, distances, mask)
        x = self._norm(
            f"{name}.attention.output.LayerNorm", x + self.linear(f"{name}.attention.output.dense", attended)
        )
        inner = _ACTIVATIONS[self.config.hidden_act](self.linear(f"{name}.intermediate.dense", x))
        return self._norm(f"{name}.output.LayerNorm", x + self.linear(f"{name}.output.dense", inner))

    def _attend(self, name: str, x: Array, relative: Array, distances: NDArray[np.int64], mask: Mask) -> Array:
        config = self.config
        query, key, value = (self.linear(f"{name}.{kind}_proj", x) for kind in ("query", "key", "value"))
        own = "" if config.share_att_key else "pos_"
        rows = np.arange(len(x))[:, None]
        context = np.empty_like(value)
        for head in range(config.heads):
            part = slice(head * config.head_size, (head + 1) * config.head_size)
            scores = query[:, part] @ key[:, part].T
            if config.content_to_position:
                positions = self.linear(f"{name}.{own}key_proj", relative)[:, part]
                scores += (query[:, part] @ positions.T)[rows, distances]
            if config.position_to_content:
                positions = self.linear(f"{name}.{own}query_proj", relative)[:, part]
                scores += (key[:, part] @ positions.T)[rows.T, distances]
            scores = np.where(mask, scores / math.sqrt(config.head_size * config.score_terms), -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            context[:, part] = weights / weights.sum(axis=1, keepdims=True) @ value[:, part]
        return context

    def _convolve(self, x: Array) -> Array:
        kernel = self._weight("plm.encoder.conv.conv.weight")
        width, groups = self.config.conv_kernel_size, self.config.conv_groups
        padded = np.pad(x, ((width // 2, width // 2), (0, 0)))
        out = np.zeros_like(x)
        size = x.shape[1] // groups
        for group in range(groups):
            part = slice(group * size, (group + 1) * size)
            for tap in range(width):
                out[:, part] += padded[tap : tap + len(x), part] @ kernel[part, :, tap].T
        return _ACTIVATIONS[self.config.conv_act](out + self._weight("plm.encoder.conv.conv.bias"))

    def rotate(self, x: Array, positions: NDArray[np.int32]) -> Array:
        angles = positions[:, None] * self._weight("rotary_emb.freqs")
        even, odd = x[:, 0::2], x[:, 1::2]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.stack((even * cos - odd * sin, odd * cos + even * sin), axis=2).reshape(x.shape)

    def _weight(self, name: str) -> Array:
        return self.weights[name].astype(np.float64)

    def linear(self, name: str, x: Array) -> Array:
        return x @ self._weight(f"{name}.weight").T + self._weight(f"{name}.bias")

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.config.layer_norm_eps)
        return np.asarray(centred / deviation * self._weight(f"{name}.weight") + self._weight(f"{name}.bias"))
