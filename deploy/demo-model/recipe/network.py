"""The network in PyTorch: an encoder with absolute positions and the pointer head, under the published names.

The same arithmetic as the exported graph (docs/extraction.md, sections 7 to 10) for ``pos_att_type`` [] and
``position_biased_input`` true: an encoder like BERT's in DeBERTa-v2's layout, so that its ``config.json`` drives the
same exporter.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; ``vocab_size`` without the four markers."""

    vocab_size: int
    hidden_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12

    def config(self) -> dict[str, Any]:
        """``config.json`` of the checkpoint."""
        return {
            "model_type": "deberta-v2",
            "architectures": ["DebertaV2Model"],
            **asdict(self),
            "hidden_act": "gelu",
            "attention_probs_dropout_prob": 0.1,
            "hidden_dropout_prob": 0.1,
            "initializer_range": 0.02,
            "max_relative_positions": -1,
            "norm_rel_ebd": "none",
            "pad_token_id": 0,
            "pos_att_type": [],
            "position_biased_input": True,
            "position_buckets": 1,
            "relative_attention": True,
            "share_att_key": True,
            "type_vocab_size": 0,
            "torch_dtype": "float16",
        }

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a checkpoint's ``config.json``. Raises ValueError for an encoder that is not of this kind."""
        if config.get("pos_att_type") or not config.get("position_biased_input"):
            raise ValueError(
                "the recipe trains encoders with absolute positions only: config.json needs pos_att_type [] and "
                "position_biased_input true"
            )
        return cls(**{name: config[name] for name in cls.__slots__})


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden = shape.hidden_size
        self.self = nn.Module()
        for name in ("query_proj", "key_proj", "value_proj"):
            setattr(self.self, name, nn.Linear(hidden, hidden))
        self.output = _output(hidden, hidden, shape.layer_norm_eps)


def _output(inputs: int, hidden: int, eps: float) -> Any:
    module = nn.Module()
    module.dense = nn.Linear(inputs, hidden)
    module.LayerNorm = nn.LayerNorm(hidden, eps)
    return module


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.num_attention_heads
        self.attention = _Attention(shape)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.output = _output(shape.intermediate_size, shape.hidden_size, shape.layer_norm_eps)

    def forward(self, x: Tensor, unseen: Tensor, drop: float) -> Tensor:
        """``x`` [B, L, h]; ``unseen`` [B, 1, L, L] is added to the scores."""
        rows, length, hidden = x.shape
        size = hidden // self.heads
        inner: Any = self.attention.self

        def heads(projection: Any) -> Tensor:
            split: Tensor = projection(x).view(rows, length, self.heads, size).transpose(1, 2)
            return split.reshape(rows * self.heads, length, size)

        query, key, value = heads(inner.query_proj), heads(inner.key_proj), heads(inner.value_proj)
        # Written out: scaled_dot_product_attention's backward pass in bfloat16 takes several times as long on a CPU.
        scores = torch.bmm(query * (1.0 / math.sqrt(size)), key.transpose(1, 2)).view(rows, self.heads, length, length)
        weights = torch.softmax(scores + unseen, -1).view(rows * self.heads, length, length).to(value.dtype)
        mixed = torch.bmm(weights, value).view(rows, self.heads, length, size).transpose(1, 2).reshape(x.shape)
        first: Any = self.attention.output
        x = first.LayerNorm(dropped(first.dense(mixed), drop) + x)
        inside: Any = self.intermediate
        inner_out = self.output.dense(functional.gelu(inside.dense(x)))
        normed: Tensor = self.output.LayerNorm(dropped(inner_out, drop) + x)
        return normed


def dropped(x: Tensor, share: float) -> Tensor:
    """Dropout with one mask per sample and feature, the same for all its tokens: much cheaper on a CPU."""
    if share <= 0:
        return x
    mask = (torch.rand(x.shape[0], 1, x.shape[2]) >= share).to(x.dtype) / (1 - share)
    return x * mask


class RexUniNLU(nn.Module):
    """Logits [B, L, L] of every pair of tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        hidden = shape.hidden_size
        plm: Any = nn.Module()
        plm.embeddings = nn.Module()
        plm.embeddings.word_embeddings = nn.Embedding(shape.vocab_size + MARKER_ROWS, hidden)
        plm.embeddings.position_embeddings = nn.Embedding(shape.max_position_embeddings, hidden)
        plm.embeddings.LayerNorm = nn.LayerNorm(hidden, shape.layer_norm_eps)
        plm.encoder = nn.Module()
        plm.encoder.layer = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        # The layout wants relative embeddings; with pos_att_type [] nothing reads them.
        plm.encoder.rel_embeddings = nn.Embedding(2, hidden)
        nn.init.zeros_(plm.encoder.rel_embeddings.weight).requires_grad_(False)
        self.plm = plm
        self.ffnq, self.ffnk = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        for head in (self.ffnq, self.ffnk):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.rotary_emb: Any = nn.Module()
        frequencies = 1.0 / (10000 ** (torch.arange(0, hidden, 2).float() / hidden))
        self.rotary_emb.freqs = nn.Parameter(frequencies, requires_grad=False)

    def forward(self, ids: Tensor, positions: Tensor, segments: Tensor, drop: float = 0.0) -> Tensor:
        """Integer tensors [B, L] as ``samples.collate`` makes them."""
        return self.head(self.encode(ids, positions, segments, drop), positions)

    def encode(self, ids: Tensor, positions: Tensor, segments: Tensor, drop: float = 0.0) -> Tensor:
        """Hidden states [B, L, h]."""
        embeddings = self.plm.embeddings
        known = positions.clamp(max=self.shape.max_position_embeddings - 1)
        x = embeddings.LayerNorm(embeddings.word_embeddings(ids) + embeddings.position_embeddings(known))
        x = dropped(x, drop)
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        unseen = torch.zeros(1, dtype=dtype).where(visible(segments), torch.tensor(-1e4, dtype=dtype)).unsqueeze(1)
        for layer in self.plm.encoder.layer:
            x = layer(x, unseen, drop)
        return x

    def head(self, x: Tensor, positions: Tensor) -> Tensor:
        """Dot products of rotated queries and keys, in float32."""
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            angles = positions.float()[:, :, None] * self.rotary_emb.freqs
            cos, sin = angles.cos(), angles.sin()

            def rotated(values: Tensor) -> Tensor:
                even, odd = values[..., 0::2], values[..., 1::2]
                return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(2)

            return torch.bmm(rotated(self.ffnq(x)), rotated(self.ffnk(x)).transpose(1, 2))


def visible(segments: Tensor) -> Tensor:
    """Which tokens see which, bool [B, L, L]; padding (segment -1) sees and is seen by nothing."""
    real = segments >= 0
    prefix, kind = segments.div(256, rounding_mode="floor"), segments.remainder(256)
    outside = segments == 0
    both = real[:, :, None] & real[:, None, :]
    same_prefix = prefix[:, :, None] == prefix[:, None, :]
    compatible = (kind[:, :, None] == 0) | (kind[:, None, :] == 0) | (kind[:, :, None] == kind[:, None, :])
    return (outside[:, :, None] | outside[:, None, :] | (same_prefix & compatible)) & both


def circle_loss(logits: Tensor, wanted: Tensor, legal: Tensor) -> Tensor:
    """One value a sample, [B]: log(1 + sum e^s over wrong cells) + log(1 + sum e^-s over right ones).

    The multi-label cross entropy after Circle Loss (Sun et al. 2020), with the threshold 0 that decoding uses.
    """
    rows = logits.shape[0]
    scores, right, read = logits.view(rows, -1), wanted.view(rows, -1), legal.view(rows, -1)
    zero = scores.new_zeros(rows, 1)
    below = torch.logsumexp(torch.cat((scores.masked_fill(~(read & ~right), -1e12), zero), 1), 1)
    above = torch.logsumexp(torch.cat(((-scores).masked_fill(~(read & right), -1e12), zero), 1), 1)
    return below + above
