"""A checkpoint folder in the published layout: written, and read back to go on from."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from consumer.extraction.prompts import PromptTokenizer, with_markers
from recipe.network import RexUniNLU, Shape
from recipe.rows import DataError
from recipe.vocabulary import SPECIAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

KEPT_WHOLE: Final = "rotary_emb.freqs"
"""Stays in float32: rounded frequencies would shift distant rotations."""


def save(
    weights: Mapping[str, Tensor], shape: Shape, tokenizer_json: str, vocabulary: Sequence[str], folder: Path
) -> None:
    """Write weights in float16, configuration and tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: (tensor if name == KEPT_WHOLE else tensor.half()).detach().contiguous().clone()
        for name, tensor in weights.items()
    }
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    special = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        "model_max_length": shape.max_position_embeddings,
        **special,
    }
    for name, text in (
        ("config.json", _json(shape.config())),
        ("tokenizer.json", tokenizer_json),
        ("vocab.txt", "\n".join(vocabulary) + "\n"),
        ("tokenizer_config.json", _json(settings)),
        ("special_tokens_map.json", _json(special)),
    ):
        (folder / name).write_text(text, "utf-8")


def load(folder: Path) -> tuple[RexUniNLU, PromptTokenizer, list[str]]:
    """A model in float32, its tokenizer with the markers, and its vocabulary. Raises DataError."""
    try:
        shape = Shape.of(json.loads((folder / "config.json").read_text("utf-8")))
        model = RexUniNLU(shape)
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in weights.items()})
        vocabulary = (folder / "vocab.txt").read_text("utf-8").splitlines()
        tokenizer = PromptTokenizer(with_markers((folder / "tokenizer.json").read_bytes()))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder} is no checkpoint that this recipe can go on from: {error}") from error
    return model, tokenizer, vocabulary


def scaled(weights: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """Weights whose logits are divided by ``temperature``: the head's dot products scale with its queries.

    What is found at logit 0 stays; what is cut by score (several classes, a task's ``threshold``) may change.
    """
    return {
        name: tensor / temperature if name.startswith("ffnq.") else tensor.clone() for name, tensor in weights.items()
    }


def shifted(weights: Mapping[str, Tensor], shift: float) -> dict[str, Tensor]:
    """Weights whose logits are all higher by ``shift``, or 0.2 % less where two tokens are far apart.

    The head has no such term. Its last pair of dimensions, which the rotation turns by 0.0001 a token, is made one:
    what it held is lost, a 256th of the head.
    """
    found = {name: tensor.clone() for name, tensor in weights.items()}
    root = math.sqrt(abs(shift))
    for name, value in (("ffnq", root), ("ffnk", math.copysign(root, shift))):
        found[f"{name}.weight"][-2:] = 0
        found[f"{name}.bias"][-2:] = torch.tensor([value, 0.0])
    return found


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
