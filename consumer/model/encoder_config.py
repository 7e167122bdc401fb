"""The encoder's ``config.json``: every switch that changes a number, typed; what cannot be honoured is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from consumer.config.git_lfs import lfs_pointer_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ACTIVATIONS: Final = ("gelu", "relu", "tanh")
_MISSING: Final = object()


class CheckpointError(Exception):
    """A checkpoint that cannot be used. The message names the file, the thing, its value and what is supported."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """A DeBERTa-v2 encoder as RexUniNLU runs it (docs/extraction.md, sections 9 and 13; the fields: docs/model.md)."""

    hidden_size: int
    embedding_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    """Size of the vocabulary without the four markers."""
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
    if (pointer := lfs_pointer_at([path])) is not None:
        raise CheckpointError(pointer)
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; a checkpoint is a folder with config.json, tokenizer files and weights"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds a JSON {type(raw).__name__}; expected an object")
    config = _Fields(path, raw).config()
    _check_sizes(path, raw, config)
    return config


def _check_sizes(path: Path, raw: dict[str, Any], config: EncoderConfig) -> None:
    """Refuse fields that are right by themselves and do not fit each other."""
    hidden, groups, buckets = config.hidden_size, config.conv_groups, config.position_buckets
    head_size = raw.get("attention_head_size")
    reach = (buckets, config.max_relative_positions)
    for wrong, field, value, supported in (
        (hidden % 2, "hidden_size", hidden, "an even number: rotary positions are pairs of features"),
        (hidden % config.heads, "num_attention_heads", config.heads, f"a divisor of hidden_size {hidden}"),
        (
            head_size is not None and (type(head_size) is not int or head_size != config.head_size),
            "attention_head_size",
            head_size,
            f"hidden_size / num_attention_heads = {config.head_size}",
        ),
        (config.type_vocab_size == 1, "type_vocab_size", 1, "0, or at least 2: the hint is type 0 and the text type 1"),
        (
            config.log_buckets and (buckets < 4 or config.max_relative_positions <= config.span // 2 + 1),
            "position_buckets, max_relative_positions",
            reach,
            "at least 4 buckets and max_relative_positions above half of them",
        ),
        (
            config.conv_kernel_size and config.conv_kernel_size % 2 == 0,
            "conv_kernel_size",
            config.conv_kernel_size,
            "0 or an odd number: the length must not change",
        ),
        (config.conv_kernel_size and hidden % groups, "conv_groups", groups, f"a divisor of hidden_size {hidden}"),
    ):
        if wrong:
            raise CheckpointError(f"{path}: {field} is {value!r}; supported: {supported}")


@dataclass(frozen=True, slots=True)
class _Fields:
    """Reads ``config.json`` field by field; null counts as absent."""

    path: Path
    raw: dict[str, Any]

    def config(self) -> EncoderConfig:
        self._one_of("model_type", ("deberta-v2",))
        self._one_of("relative_attention", (True,), False)
        terms = self._names("pos_att_type", ("c2p", "p2c"), ())
        hidden = self._int("hidden_size", at_least=2)
        return EncoderConfig(
            hidden_size=hidden,
            embedding_size=self._int("embedding_size", hidden, at_least=1),
            layers=self._int("num_hidden_layers", at_least=1, at_most=1000),
            heads=self._int("num_attention_heads", at_least=1),
            intermediate_size=self._int("intermediate_size", at_least=1),
            vocab_size=self._int("vocab_size", at_least=1),
            type_vocab_size=self._int("type_vocab_size", 0, at_least=0),
            max_position_embeddings=self._int("max_position_embeddings", 512, at_least=1),
            position_buckets=self._int("position_buckets", -1),
            max_relative_positions=self._int("max_relative_positions", -1),
            content_to_position="c2p" in terms,
            position_to_content="p2c" in terms,
            share_att_key=self._one_of("share_att_key", (True, False), False),
            normalize_positions="layer_norm" in self._names("norm_rel_ebd", ("layer_norm", "none"), ("none",)),
            position_biased_input=self._one_of("position_biased_input", (True, False), True),
            layer_norm_eps=float(
                self._checked(
                    "layer_norm_eps", 1e-7, lambda value: type(value) in (int, float) and value > 0, "a number above 0"
                )
            ),
            hidden_act=self._one_of("hidden_act", _ACTIVATIONS, "gelu"),
            conv_kernel_size=self._int("conv_kernel_size", 0, at_least=0),
            conv_groups=self._int("conv_groups", 1, at_least=1),
            conv_act=self._one_of("conv_act", _ACTIVATIONS, "tanh"),
        )

    def _checked(self, field: str, default: object, valid: Callable[[Any], bool], supported: str) -> Any:
        value = self.raw.get(field)
        if value is None:
            value = default
        if value is _MISSING:
            raise CheckpointError(f"{self.path}: {field} is missing")
        if not valid(value):
            raise CheckpointError(f"{self.path}: {field} is {value!r}; supported: {supported}")
        return value

    def _int(self, field: str, default: object = _MISSING, at_least: int = -(2**31), at_most: int = 2**31 - 1) -> int:
        supported = "an integer" if at_least < -1 else f"an integer of at least {at_least}"
        return int(
            self._checked(
                field,
                default,
                lambda value: type(value) is int and at_least <= value <= at_most,
                supported if at_most == 2**31 - 1 else f"{supported} and at most {at_most}",
            )
        )

    def _one_of(self, field: str, supported: tuple[object, ...], default: object = _MISSING) -> Any:
        def valid(value: object) -> bool:  # JSON's 1 is not true, although Python's is equal
            return any(type(value) is type(choice) and value == choice for choice in supported)

        return self._checked(field, default, valid, ", ".join(map(json.dumps, supported)))

    def _names(self, field: str, supported: tuple[str, ...], default: tuple[str, ...]) -> list[str]:
        # Both spellings exist in published files: "p2c|c2p" and ["p2c", "c2p"].
        def names(value: Any) -> Any:
            return value.lower().split("|") if isinstance(value, str) else value

        def valid(value: Any) -> bool:
            return isinstance(names(value), list | tuple) and all(name in supported for name in names(value))

        return list(names(self._checked(field, default, valid, "any of " + ", ".join(supported))))
