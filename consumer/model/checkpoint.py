"""A checkpoint on disk: its configuration, and weights that match it name by name and shape by shape.

The exporter and the in-process model start here. A weights file must hold every tensor that its ``config.json`` asks
for, and no other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import safetensors

from consumer.config.git_lfs import lfs_pointer_at
from consumer.extraction.prompts import MARKERS
from consumer.model.encoder_config import CheckpointError, EncoderConfig, read_config
from consumer.model.torch_zip import read_torch_zip, to_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_SAFETENSORS: Final = "model.safetensors"
_TORCH: Final = "pytorch_model.bin"
_SAFETENSORS_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8"}

_MOST_LISTED: Final = 100

_POSITION_COUNT: Final = "plm.embeddings.position_ids"
"""A buffer 0, 1, 2, ... that older Hugging Face releases saved with the weights. It holds nothing that was learned, so
it is the one name that may be there without being used, and only with that content."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    ``weights`` are float32, whatever they were stored in; names as in docs/extraction.md, section 13.
    """

    config: EncoderConfig
    weights: Mapping[str, NDArray[np.float32]]
    sha256: str
    """SHA-256 of the weights file, in hexadecimal."""


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder: ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.

    Raises CheckpointError when a name is missing, not needed or of another shape; the message lists them.
    """
    config = read_config(folder)
    path = next((folder / name for name in (_SAFETENSORS, _TORCH) if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder} has no weights; expected {_SAFETENSORS} or {_TORCH} in it")
    if (pointer := lfs_pointer_at([path])) is not None:
        raise CheckpointError(pointer)
    expected = expected_shapes(config)
    weights: dict[str, NDArray[np.float32]] = {}
    unused: list[str] = []
    misshaped: dict[str, str] = {}
    for name, array in _read_safetensors(path) if path.name == _SAFETENSORS else read_torch_zip(path):
        if name == _POSITION_COUNT and np.array_equal(array.ravel(), np.arange(array.size)):
            continue
        if name not in expected:
            unused.append(name)
        elif array.shape != expected[name]:
            misshaped[name] = f"{name} {list(array.shape)} instead of {list(expected[name])}"
        elif array.dtype.kind != "f":
            misshaped[name] = f"{name} of type {array.dtype} instead of a floating point type"
        else:
            weights[name] = array.astype(np.float32)
            if not np.isfinite(weights[name]).all():
                misshaped[name] = f"{name} with values that are not finite"
    missing = [name for name in expected if name not in weights and name not in misshaped]
    problems = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("missing", missing),
            ("not used by this configuration", unused),
            ("wrong", list(misshaped.values())),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit {folder / 'config.json'}; " + "; ".join(problems))
    with path.open("rb") as file:
        return Checkpoint(config, weights, hashlib.file_digest(file, "sha256").hexdigest())


def _listed(names: list[str]) -> str:
    """Names that a file chose, as many as a person reads."""
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(name[:200] for name in names[:_MOST_LISTED]) + more


def expected_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that this configuration needs (docs/extraction.md, section 13)."""
    h, e, inner = config.hidden_size, config.embedding_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "plm.embeddings.word_embeddings.weight": (config.vocab_size + len(MARKERS), e),
        "plm.encoder.rel_embeddings.weight": (2 * config.span, h),
        "rotary_emb.freqs": (h // 2,),
    }
    if config.position_biased_input:
        shapes["plm.embeddings.position_embeddings.weight"] = (config.max_position_embeddings, e)
    if config.type_vocab_size:
        shapes["plm.embeddings.token_type_embeddings.weight"] = (config.type_vocab_size, e)
    if e != h:
        shapes["plm.embeddings.embed_proj.weight"] = (h, e)
    norms = ["plm.embeddings.LayerNorm"] + ["plm.encoder.LayerNorm"] * config.normalize_positions
    if config.conv_kernel_size:
        norms.append("plm.encoder.conv.LayerNorm")
        shapes["plm.encoder.conv.conv.weight"] = (h, h // config.conv_groups, config.conv_kernel_size)
        shapes["plm.encoder.conv.conv.bias"] = (h,)
    projections = ["query_proj", "key_proj", "value_proj"]
    if not config.share_att_key:
        projections += ["pos_key_proj"] * config.content_to_position + ["pos_query_proj"] * config.position_to_content
    linears: dict[str, tuple[int, ...]] = {}
    for layer in (f"plm.encoder.layer.{i}" for i in range(config.layers)):
        linears |= {f"{layer}.attention.self.{projection}": (h, h) for projection in projections}
        linears |= {
            f"{layer}.attention.output.dense": (h, h),
            f"{layer}.intermediate.dense": (inner, h),
            f"{layer}.output.dense": (h, inner),
        }
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    linears |= {"ffnq": (h, h), "ffnk": (h, h)}
    for name, shape in (*linears.items(), *((norm, (h,)) for norm in norms)):
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def _read_safetensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    # safe_open(framework="np") has no bfloat16; deserialize gives the checked bytes of every tensor.
    try:
        entries = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from None
    while entries:
        name, entry = entries.pop()
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(
                f"{path}: {name} is stored as {entry['dtype']}; supported: {', '.join(_SAFETENSORS_TYPES)}"
            )
        yield name, to_array(entry["data"], dtype).reshape(entry["shape"])
