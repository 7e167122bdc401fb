"""The encoder's ``config.json``: every switch that changes a number, typed; what cannot be honoured is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_ACTIVATIONS: Final = ("gelu", "relu", "tanh")
_MISSING: Final = object()


class CheckpointError(Exception):
    """A checkpoint that cannot be used. The message names the file, the thing, its value and what is supported."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """A DeBERTa-v2 encoder as RexUniNLU runs it (specification sections 9 and 13)."""

    hidden_size: int
    embedding_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    """Without the four markers."""
    type_vocab_size: int
    max_position_embeddings: int
    position_buckets: int
    max_relative_positions: int
    """The raw value: only a positive one switches the log buckets on (Q15)."""
    content_to_position: bool
    position_to_content: bool
    share_att_key: bool
    normalize_positions: bool
    position_biased_input: bool
    layer_norm_eps: float
    hidden_act: str
    conv_kernel_size: int
    conv_groups: int
    conv_act: str

    @property
    def head_size(self) -> int:
        """d, features of one attention head."""
        return self.hidden_size // self.heads

    @property
    def span(self) -> int:
        """S: relative distances reach from -S to S - 1, so there are 2S position embeddings."""
        if self.position_buckets > 0:
            return self.position_buckets
        return self.max_relative_positions if self.max_relative_positions >= 1 else self.max_position_embeddings

    @property
    def log_buckets(self) -> bool:
        """Whether distant positions share embeddings on a logarithmic scale."""
        return self.max_relative_positions > 0 and self.position_buckets > 0

    @property
    def score_terms(self) -> int:
        """s: scores are divided by sqrt(d * s)."""
        return 1 + self.content_to_position + self.position_to_content


def read_config(folder: Path) -> EncoderConfig:
    """Read ``config.json``. Raises CheckpointError for a missing file, field or an unsupported value."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; a checkpoint is a folder with config.json, tokenizer files and weights"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds a JSON {type(raw).__name__}; expected an object")
    return _Reader(path, raw).config()


class _Reader:
    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self._path = path
        self._raw = raw

    def config(self) -> EncoderConfig:
        self._one_of("model_type", ("deberta-v2",), _MISSING)
        self._one_of("relative_attention", (True,), False)
        terms = self._names("pos_att_type", ("c2p", "p2c"), ())
        hidden = self._int("hidden_size", at_least=2)
        config = EncoderConfig(
            hidden_size=hidden,
            embedding_size=self._int("embedding_size", hidden, at_least=1),
            layers=self._int("num_hidden_layers", at_least=1),
            heads=self._int("num_attention_heads", at_least=1),
            intermediate_size=self._int("intermediate_size", at_least=1),
            vocab_size=self._int("vocab_size", at_least=1),
            type_vocab_size=self._int("type_vocab_size", 0, at_least=0),
            max_position_embeddings=self._int("max_position_embeddings", 512, at_least=1),
            position_buckets=self._int("position_buckets", -1),
            max_relative_positions=self._int("max_relative_positions", -1),
            content_to_position="c2p" in terms,
            position_to_content="p2c" in terms,
            share_att_key=bool(self._one_of("share_att_key", (True, False), False)),
            normalize_positions="layer_norm" in self._names("norm_rel_ebd", ("layer_norm", "none"), ("none",)),
            position_biased_input=bool(self._one_of("position_biased_input", (True, False), True)),
            layer_norm_eps=self._positive("layer_norm_eps", 1e-7),
            hidden_act=str(self._one_of("hidden_act", _ACTIVATIONS, "gelu")),
            conv_kernel_size=self._int("conv_kernel_size", 0, at_least=0),
            conv_groups=self._int("conv_groups", 1, at_least=1),
            conv_act=str(self._one_of("conv_act", _ACTIVATIONS, "tanh")),
        )
        self._check_sizes(config)
        return config

    def _check_sizes(self, config: EncoderConfig) -> None:
        if config.hidden_size % 2:
            self._refuse("hidden_size", config.hidden_size, "an even number: rotary positions turn pairs of features")
        if config.hidden_size % config.heads:
            self._refuse("num_attention_heads", config.heads, f"a divisor of hidden_size {config.hidden_size}")
        size = self._int("attention_head_size", config.head_size)
        if size != config.head_size:
            self._refuse("attention_head_size", size, f"hidden_size / num_attention_heads = {config.head_size}")
        if config.type_vocab_size == 1:
            self._refuse("type_vocab_size", 1, "0, or at least 2: the hint is type 0 and the text type 1")
        if config.log_buckets and (
            config.position_buckets < 4 or config.max_relative_positions <= config.span // 2 + 1
        ):
            values = (config.position_buckets, config.max_relative_positions)
            supported = "at least 4 buckets and max_relative_positions above half of them"
            self._refuse("position_buckets, max_relative_positions", values, supported)
        if config.conv_kernel_size and config.conv_kernel_size % 2 == 0:
            self._refuse("conv_kernel_size", config.conv_kernel_size, "0 or an odd number: the length must not change")
        if config.conv_kernel_size and config.hidden_size % config.conv_groups:
            self._refuse("conv_groups", config.conv_groups, f"a divisor of hidden_size {config.hidden_size}")

    def _refuse(self, field: str, value: object, supported: str) -> None:
        raise CheckpointError(f"{self._path}: {field} is {value!r}; supported: {supported}")

    def _get(self, field: str, default: object) -> object:
        value = self._raw.get(field)
        if value is not None:
            return value
        if default is _MISSING:
            raise CheckpointError(f"{self._path}: {field} is missing")
        return default

    def _int(self, field: str, default: object = _MISSING, at_least: int = -(2**31)) -> int:
        value = self._get(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            self._refuse(field, value, "an integer" if at_least < -1 else f"an integer of at least {at_least}")
        assert isinstance(value, int)  # noqa: S101 - for the type checker: refused above
        return value

    def _positive(self, field: str, default: float) -> float:
        value = self._get(field, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            self._refuse(field, value, "a number above 0")
        assert isinstance(value, int | float)  # noqa: S101 - for the type checker: refused above
        return float(value)

    def _one_of(self, field: str, supported: tuple[object, ...], default: object) -> object:
        value = self._get(field, default)
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in supported):
            self._refuse(field, value, ", ".join(json.dumps(choice) for choice in supported))
        return value

    def _names(self, field: str, supported: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
        # Both spellings exist in published files: "p2c|c2p" and ["p2c", "c2p"].
        value = self._get(field, default)
        names = value.lower().split("|") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or any(name not in supported for name in names):
            self._refuse(field, value, "any of " + ", ".join(supported))
        return tuple(str(name) for name in names)  # type: ignore[attr-defined]  # refused above
