"""Weights fit their configuration name by name and shape by shape, whatever file they come from."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.model.checkpoint import load_checkpoint
from consumer.model.encoder_config import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.model

FLAT = "plm.encoder.rel_embeddings.weight"
TURNED = "ffnq.weight"


@pytest.fixture
def checkpoint(tmp_path: Path, micro: Any) -> Path:
    folder: Path = micro.write(tmp_path / "checkpoint")
    return folder


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


class StatePickler(pickle._Pickler):
    """Pickles what PyTorch would, without PyTorch: names of globals are written as text."""

    save: Any
    write: Any

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)

    def name(self, module: str, name: str) -> None:
        self.write(b"c" + f"{module}\n{name}\n".encode())

    def tensor(self, storage: str, key: str, count: int, offset: int, shape: Any, stride: Any) -> None:
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.write(b"((")
        self.save("storage")
        self.name("torch", storage)
        for value in (key, "cpu", count):
            self.save(value)
        self.write(b"tQ")
        for value in (offset, shape, stride, False):
            self.save(value)
        self.name("collections", "OrderedDict")
        self.write(b")RtR")


def write_torch_zip(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    """A state dict as PyTorch writes it: half, bfloat16, a transposed view and a view into a larger storage in it."""
    description = io.BytesIO()
    pickler = StatePickler(description)
    storages: dict[str, bytes] = {}
    description.write(b"\x80\x02")
    pickler.name("collections", "OrderedDict")
    description.write(b")R(")
    for index, (name, weight) in enumerate(weights.items()):
        key, storage, raw = str(index), "FloatStorage", weight.tobytes()
        offset, stride = 0, tuple(step // 4 for step in weight.strides)
        if name == TURNED:
            raw, stride = weight.T.tobytes(), (1, weight.shape[0])
        elif name == FLAT:
            offset, raw = 5, b"\0" * 20 + raw + b"\0" * 12
        elif name.startswith("ffnk"):
            storage, raw = "HalfStorage", weight.astype("<f2").tobytes()
        elif name.startswith("plm.embeddings"):
            storage, raw = "BFloat16Storage", bfloat16(weight).tobytes()
        elif name.endswith("bias"):
            storage, raw = "DoubleStorage", weight.astype("<f8").tobytes()
        width = {"HalfStorage": 2, "BFloat16Storage": 2, "DoubleStorage": 8}.get(storage, 4)
        storages[key] = raw
        pickler.save(name)
        pickler.tensor(storage, key, len(raw) // width, offset, weight.shape, stride)
    description.write(b"u}")  # PyTorch's state dicts carry attributes
    pickler.save("_metadata")
    pickler.name("collections", "OrderedDict")
    description.write(b")Rsb.")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", description.getvalue())
        archive.writestr("model/byteorder", b"little")
        for key, raw in storages.items():
            archive.writestr(f"model/data/{key}", raw)


def as_stored(name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left of a weight in the precision that write_torch_zip chooses."""
    if name.startswith("ffnk"):
        return weight.astype(np.float16).astype(np.float32)
    if name.startswith("plm.embeddings"):
        return (bfloat16(weight).astype(np.uint32) << 16).view(np.float32)
    return weight


def test_both_files_give_the_same_weights(checkpoint: Path, micro: Any) -> None:
    """A state dict written by PyTorch, views and all, loads as its safetensors twin does, bit by bit."""
    weights = {name: as_stored(name, weight) for name, weight in micro.weights(checkpoint).items()}
    micro.write(checkpoint, weights=weights)
    expected = load_checkpoint(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    write_torch_zip(checkpoint / "pytorch_model.bin", weights)
    found = load_checkpoint(checkpoint)
    assert found.weights.keys() == expected.weights.keys() == weights.keys()
    for name, weight in found.weights.items():
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, expected.weights[name], err_msg=name)


def test_the_golden_checkpoint_in_both_files(golden: Path, tmp_path: Path) -> None:
    """A file that PyTorch itself wrote gives what its safetensors twin gives."""
    expected = load_checkpoint(golden / "tiny")
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_bytes((golden / "tiny" / name).read_bytes())
    found = load_checkpoint(tmp_path)
    assert found.sha256 != expected.sha256
    assert all(np.array_equal(found.weights[name], expected.weights[name]) for name in expected.weights)
    assert len(found.weights) == len(expected.weights) > 40


def test_low_precision_safetensors_are_widened(checkpoint: Path, micro: Any) -> None:
    """float16 and bfloat16 tensors become float32 without loss."""
    weights = micro.weights(checkpoint)
    entries: dict[str, Any] = {}
    content = b""
    for index, (name, weight) in enumerate(weights.items()):
        kind, raw = ("BF16", bfloat16(weight).tobytes()) if index % 2 else ("F16", weight.astype("<f2").tobytes())
        entries[name] = {
            "dtype": kind,
            "shape": list(weight.shape),
            "data_offsets": [len(content), len(content) + len(raw)],
        }
        content += raw
    header = json.dumps(entries).encode()
    (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + content)
    found = load_checkpoint(checkpoint).weights
    for index, (name, weight) in enumerate(weights.items()):
        wanted = (
            (bfloat16(weight).astype(np.uint32) << 16).view(np.float32)
            if index % 2
            else weight.astype(np.float16).astype(np.float32)
        )
        np.testing.assert_array_equal(found[name], wanted)


def test_every_wrong_name_is_listed(checkpoint: Path, micro: Any) -> None:
    """One error lists what is missing, what has no use and what has another shape, and nothing else."""
    weights = micro.weights(checkpoint)
    del weights["ffnq.bias"], weights["plm.encoder.layer.1.output.dense.bias"]
    weights["lm_head.weight"] = np.zeros(3, np.float32)
    weights["rotary_emb.freqs"] = np.zeros(24, np.float32)
    micro.write(checkpoint, weights=weights)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(checkpoint)
    problems = str(error.value).split("; ")[1:]
    assert problems == [
        "missing: plm.encoder.layer.1.output.dense.bias, ffnq.bias",
        "not used by this configuration: lm_head.weight",
        "wrong: rotary_emb.freqs [24] instead of [12]",
    ]


def test_weights_of_another_configuration_are_refused(checkpoint: Path, micro: Any) -> None:
    """Weights for shared position keys do not pass for a configuration with keys of its own."""
    (checkpoint / "config.json").write_text(json.dumps({**micro.base, "share_att_key": False}))
    with pytest.raises(
        CheckpointError, match=r"missing: plm\.encoder\.layer\.0\.attention\.self\.pos_key_proj\.weight"
    ):
        load_checkpoint(checkpoint)


def test_values_that_are_not_finite_are_named(checkpoint: Path, micro: Any) -> None:
    """A weight with a NaN would make every answer NaN; it is refused at load."""
    weights = micro.weights(checkpoint)
    weights["ffnk.bias"][3] = np.nan
    micro.write(checkpoint, weights=weights)
    with pytest.raises(CheckpointError, match=r"ffnk\.bias with values that are not finite"):
        load_checkpoint(checkpoint)


def test_integers_are_no_weights(checkpoint: Path, micro: Any) -> None:
    """A tensor of whole numbers in place of a weight is named."""
    weights = micro.weights(checkpoint)
    weights["ffnk.bias"] = np.zeros(24, np.int64)
    micro.write(checkpoint, weights=weights)
    with pytest.raises(CheckpointError, match=r"ffnk\.bias of type int64"):
        load_checkpoint(checkpoint)


def test_the_position_buffer_of_older_releases_may_stay(checkpoint: Path, micro: Any) -> None:
    """position_ids as older Hugging Face releases saved it is passed over, but only while it counts 0, 1, 2, ..."""
    weights = micro.weights(checkpoint)
    weights["plm.embeddings.position_ids"] = np.arange(80)[None]
    micro.write(checkpoint, weights=weights)
    assert "plm.embeddings.position_ids" not in load_checkpoint(checkpoint).weights
    weights["plm.embeddings.position_ids"] = np.arange(80)[None] + 1
    micro.write(checkpoint, weights=weights)
    with pytest.raises(CheckpointError, match=r"not used by this configuration: plm\.embeddings\.position_ids"):
        load_checkpoint(checkpoint)


def test_a_folder_without_weights_says_what_is_expected(checkpoint: Path) -> None:
    """Both supported names are in the error."""
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_checkpoint(checkpoint)


def test_a_damaged_safetensors_file_is_refused(checkpoint: Path) -> None:
    """A file that was cut off fails at once, by name."""
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file"):
        load_checkpoint(checkpoint)


def test_the_stamp_is_the_hash_of_the_weights_file(checkpoint: Path) -> None:
    """Anybody can repeat it with sha256sum."""
    expected = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert load_checkpoint(checkpoint).sha256 == expected


def test_a_configuration_of_a_thousand_million_layers_is_refused(checkpoint: Path) -> None:
    """Before a name is made for each of their weights."""
    for field, value in (("num_hidden_layers", 10**9), ("hidden_size", 2**40), ("vocab_size", 2**70)):
        config = json.loads((checkpoint / "config.json").read_bytes())
        (checkpoint / "hostile").mkdir(exist_ok=True)
        (checkpoint / "hostile" / "config.json").write_text(json.dumps({**config, field: value}))
        with pytest.raises(CheckpointError, match=field):
            load_checkpoint(checkpoint / "hostile")
    (checkpoint / "hostile" / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_checkpoint(checkpoint / "hostile")


def test_a_file_of_many_strange_tensors_makes_no_endless_message(checkpoint: Path, micro: Any) -> None:
    """A hundred of each kind are listed, and a long name is cut."""
    strange = {f"{'x' * 5000}{number}": np.zeros(1, np.float32) for number in range(500)}
    micro.write(checkpoint, weights={**micro.weights(checkpoint), **strange})
    with pytest.raises(CheckpointError, match="and 400 more") as caught:
        load_checkpoint(checkpoint)
    assert len(str(caught.value)) < 30_000


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_is_called_that(checkpoint: Path, name: str) -> None:
    """What a clone without Git LFS has instead of the weights."""
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        CheckpointError, match=rf"{name} is a Git LFS pointer of 63 bytes, not the file; run git lfs pull"
    ):
        load_checkpoint(checkpoint)
