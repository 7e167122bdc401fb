"""Reads ``pytorch_model.bin`` without PyTorch and without running what is in it.

The file is a zip: ``<name>/data.pkl`` describes the tensors, ``<name>/data/<key>`` holds their bytes. A pickle may call
anything it can name, so this unpickler accepts a handful of names, returns data records for them and refuses all
others.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from consumer.model.encoder_config import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_STORAGES: Final = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DESCRIPTION_BYTES: Final = 64 * 1024 * 1024
"""A real description takes about 200 bytes a tensor; unpickling keeps all of it in memory."""


class _StorageType(NamedTuple):
    """Stands for ``torch.FloatStorage`` and its like. Not callable, so a pickle can do nothing with it."""

    dtype: str


class _Storage(NamedTuple):
    dtype: str
    key: str
    elements: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def to_array(raw: bytes, dtype: str) -> NDArray[Any]:
    """View little-endian bytes as a flat array. ``bfloat16``, which numpy lacks, becomes float32 (exact)."""
    if dtype == "bfloat16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype)


def read_torch_zip(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield ``(name, array)`` of a plain state dict, one tensor in memory at a time.

    Raises CheckpointError for a file that is not a zip, is cut off, or whose pickle names anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            prefix, tensors = _describe(path, archive)
            for name, tensor in tensors.items():
                yield name, _materialise(path, archive, prefix, name, tensor)
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is not a zip archive; files written before PyTorch 1.6 are not supported:"
            " load and save it again with a current PyTorch, or convert it to model.safetensors"
        ) from None


def _describe(path: Path, archive: zipfile.ZipFile) -> tuple[str, dict[str, _Tensor]]:
    members = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(members) != 1:
        raise CheckpointError(f"{path} holds {len(members)} members named */data.pkl; expected one")
    prefix = members[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder") != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; supported: little")
    if archive.getinfo(members[0]).file_size > _DESCRIPTION_BYTES:
        raise CheckpointError(f"{path}: {members[0]} is larger than {_DESCRIPTION_BYTES} bytes")
    with archive.open(members[0]) as description:
        try:
            state = _TensorUnpickler(path, description).load()
        except CheckpointError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise CheckpointError(f"{path}: {members[0]} cannot be read: {type(error).__name__}: {error}") from None
    if type(state) not in (dict, OrderedDict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected a state dict of tensors")
    # Not state.items(): an OrderedDict carries attributes of the file's choosing, which would shadow the method.
    entries = list(dict.items(state))
    strange = [repr(key) for key, value in entries if not isinstance(key, str) or not isinstance(value, _Tensor)]
    if strange:
        raise CheckpointError(
            f"{path}: entries that are not tensors: {', '.join(strange[:8])}; save a plain state dict"
        )
    return prefix, dict(entries)


def _materialise(path: Path, archive: zipfile.ZipFile, prefix: str, name: str, tensor: _Tensor) -> NDArray[Any]:
    member = f"{prefix}data/{tensor.storage.key}"
    try:
        flat = to_array(archive.read(member), tensor.storage.dtype)
    except KeyError:
        raise CheckpointError(f"{path}: the bytes of {name} ({member}) are missing") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {member}: {error}") from None
    extent = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    end = tensor.offset + extent + 1 if all(tensor.shape) else tensor.offset
    if len(flat) < tensor.storage.elements or end > len(flat):
        raise CheckpointError(f"{path}: {name} needs {end} elements of {member}, which holds {len(flat)}")
    return np.ascontiguousarray(
        np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.shape, [step * flat.itemsize for step in tensor.stride], writeable=False
        )
    )


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise CheckpointError(
            f"{self._path}: its pickle names {module}.{name}, which is refused: only tensors and ordered dictionaries"
            " are read. Save a plain state dict (torch.save(model.state_dict(), ...)) or convert it to safetensors"
        )

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), str(), int(elements)) if "/" not in key:
                return _Storage(dtype, key, elements)
        raise CheckpointError(f"{self._path}: its pickle holds storage reference {pid!r}")

    def _rebuild(self, *arguments: object) -> _Tensor:
        match arguments:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
                numbers = (offset, *shape, *stride)
                if len(shape) == len(stride) and all(type(n) is int and 0 <= n < 2**40 for n in numbers):
                    return _Tensor(storage, offset, shape, stride)
        raise CheckpointError(f"{self._path}: its pickle holds a tensor with impossible shape, stride or offset")
