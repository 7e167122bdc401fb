"""Micro checkpoints with random weights, and prompts for them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.config.shipped import shipped
from consumer.extraction.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

VOCAB = 40
PREFIX, TYPE, CLASSIFY, MULTICLASSIFY = range(VOCAB, VOCAB + 4)
CLS, SEP = 2, 3

BASE: dict[str, Any] = {
    "model_type": "deberta-v2",
    "relative_attention": True,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "vocab_size": VOCAB,
    "max_position_embeddings": 80,
    "max_relative_positions": -1,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "hidden_act": "gelu",
}


@dataclass(frozen=True)
class Micro:
    """Makes checkpoint folders and prompts of a 40-word vocabulary."""

    base: dict[str, Any]

    def write(
        self,
        folder: Path,
        seed: int = 0,
        weights: dict[str, NDArray[Any]] | None = None,
        **changes: Any,
    ) -> Path:
        """A folder with config.json and model.safetensors; random weights unless given."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**self.base, **changes}))
        save_file(self.weights(folder, seed) if weights is None else weights, folder / "model.safetensors")
        return folder

    def write_with_tokenizer(self, folder: Path, seed: int = 0) -> Path:
        """The same with a tokenizer of 35 characters, so that it can be exported and run."""
        self.write(folder, seed)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(ord("一") + i) for i in range(VOCAB - 5))]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
        return folder

    def weights(self, folder: Path, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        """Random weights for a folder's config.json; logits spread over several units."""
        from consumer.model.checkpoint import expected_shapes
        from consumer.model.encoder_config import read_config

        rng = np.random.default_rng(seed)
        made = {}
        for name, shape in expected_shapes(read_config(folder)).items():
            values = rng.normal(0.0, 0.3, shape)
            if name.endswith("LayerNorm.weight"):
                values = 1.0 + values
            if name == "rotary_emb.freqs":
                values = 10_000.0 ** (-np.arange(shape[0]) / shape[0])
            made[name] = values.astype(np.float32)
        return made

    def prompt(
        self,
        prefixes: Sequence[tuple[int, Sequence[int]]] = ((0, (2, 1)),),
        text: int = 10,
        marker: int | None = None,
        seed: int = 0,
    ) -> Window:
        """A window laid out as docs/extraction.md says (sections 4, 6 and 7), of random words.

        ``prefixes`` are (words of the prefix, words of each type); ``text`` counts the words of the text, in front of
        which ``marker`` may stand.
        """
        rng = np.random.default_rng(seed)
        tokens: list[tuple[int, int, int]] = [(CLS, 0, 0)]  # id, position, segment

        def words(count: int) -> list[int]:
            return [int(word) for word in rng.integers(5, VOCAB, count)]

        for p, (length, types) in enumerate(prefixes, start=1):
            tokens += [(word, 1 + i, p * 256) for i, word in enumerate([PREFIX, *words(length)])]
            for t, size in enumerate(types, start=1):
                tokens += [(word, 2 + length + i, p * 256 + t) for i, word in enumerate([TYPE, *words(size)])]
        after = max(position for _, position, _ in tokens) + 1
        start = len(tokens) + 1
        rest = [SEP, *([] if marker is None else [marker]), *words(text), SEP]
        tokens += [(word, after + i, 0) for i, word in enumerate(rest)]
        ids, positions, segments = (np.array(column, np.int32) for column in zip(*tokens, strict=True))
        return Window(ids, positions, segments, start)


@pytest.fixture(scope="session")
def micro() -> Micro:
    return Micro(BASE)


@pytest.fixture(scope="session")
def agreed() -> Callable[[int], Any]:
    """Markers of the micro vocabulary, for a number of cells per window."""
    from consumer.serving.tensors import GraphContract

    return lambda cells: GraphContract(-7, cells, 0, TYPE, frozenset((CLASSIFY, MULTICLASSIFY)))


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return shipped("deploy/demo-model")


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = Path(__file__).resolve().parents[4] / "shared" / "reference" / "golden"
    if not folder.is_dir():
        pytest.skip("the golden vectors (../shared/reference/golden) are not on this machine")
    return folder
