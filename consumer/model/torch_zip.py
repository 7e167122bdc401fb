"""Reads ``pytorch_model.bin`` without PyTorch, without running what is in it, and without believing what it claims.

The file is a zip: ``<name>/data.pkl`` describes the tensors, ``<name>/data/<key>`` holds their bytes. PyTorch stores
members as they are. That is required, so nothing is larger than the file itself, and shapes are compared with the bytes
that are there before any are read.
"""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from consumer.model.encoder_config import CheckpointError
from consumer.model.torch_pickle import MOST_TENSORS, Tensor, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_DESCRIPTION_BYTES: Final = 8 * 1024 * 1024
"""A real description takes about 200 bytes a tensor."""
_MOST_MEMBERS: Final = MOST_TENSORS + 100
_SHARED: Final = 4
"""Tensors may share storages (tied weights), so together they may be larger than the file: up to so many times."""


def to_array(raw: bytes, dtype: str) -> NDArray[Any]:
    """View little-endian bytes as a flat array. ``bfloat16``, which numpy lacks, becomes float32 (exact)."""
    if dtype == "bfloat16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype)


def read_torch_zip(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield ``(name, array)`` of a plain state dict, one tensor in memory at a time.

    Raises CheckpointError for a file that is not a zip, is cut off or compressed, whose pickle names anything but
    tensors, or whose tensors are larger than their bytes.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is not a zip archive; files written before PyTorch 1.6 are not supported:"
            " load and save it again with a current PyTorch, or convert it to model.safetensors"
        ) from None
    except (ValueError, NotImplementedError, OSError) as error:  # a directory that makes no sense
        raise CheckpointError(f"{path} is no archive that can be read: {type(error).__name__}") from None
    with archive:
        size = path.stat().st_size
        members = _members(path, archive, size)
        prefix = _prefix(path, archive, members)
        description = _read(path, archive, members, f"{prefix}data.pkl")
        tensors = read_state_dict(path, description)
        _check_sizes(path, members, prefix, tensors, size)
        held, flat = "", np.empty(0)
        for name, tensor in tensors.items():
            member = f"{prefix}data/{tensor.storage.key}"
            if member != held:  # views of one storage mostly follow each other
                held, flat = member, to_array(_read(path, archive, members, member), tensor.storage.dtype)
            yield name, _view(flat, tensor)


def _members(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name, all stored as they are and within the file's ``size`` bytes."""
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(infos) > _MOST_MEMBERS or len(members) < len(infos):
        raise CheckpointError(f"{path} holds {len(infos)} members, {len(members)} names; supported: {_MOST_MEMBERS}")
    for info in infos:
        plain = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not plain or info.flag_bits & 1:
            raise CheckpointError(
                f"{path}: {info.filename[:60]!r} is compressed or encrypted, which PyTorch's files never are; save it"
                " again with torch.save"
            )
    if sum(info.file_size for info in infos) > size:
        raise CheckpointError(f"{path}: its members claim more bytes than the {size} that it has")
    return members


def _prefix(path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> str:
    found = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise CheckpointError(f"{path} holds {len(found)} members named */data.pkl; expected one")
    prefix = found[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in members and _read(path, archive, members, f"{prefix}byteorder") != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; supported: little")
    if members[found[0]].file_size > _DESCRIPTION_BYTES:
        raise CheckpointError(f"{path}: {found[0]} is larger than {_DESCRIPTION_BYTES} bytes")
    return prefix


def _read(path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> bytes:
    try:
        content = archive.read(members[name])
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {name} cannot be read: {type(error).__name__}: {error}") from None
    if len(content) != members[name].file_size:
        raise CheckpointError(f"{path}: {name} is cut off")
    return content


def _check_sizes(
    path: Path, members: Mapping[str, zipfile.ZipInfo], prefix: str, tensors: Mapping[str, Tensor], size: int
) -> None:
    """Whether each tensor lies within the bytes of its storage, and all together are no more than the file explains."""
    total = 0
    dtypes: dict[str, str] = {}
    for name, tensor in tensors.items():
        storage, member = tensor.storage, f"{prefix}data/{tensor.storage.key}"
        if member not in members:
            raise CheckpointError(f"{path}: the bytes of {name[:200]} ({member}) are missing")
        width = 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize
        held, left = divmod(members[member].file_size, width)
        if left or dtypes.setdefault(member, storage.dtype) != storage.dtype:
            raise CheckpointError(f"{path}: {member} holds {members[member].file_size} bytes, no whole {storage.dtype}")
        count = math.prod(tensor.shape)
        extent = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        end = tensor.offset + (extent + 1 if count else 0)
        # A stride of 0 repeats elements: 356 bytes once asked for 256 GiB.
        needed = max(end, count, storage.elements)
        if needed > held:
            raise CheckpointError(f"{path}: {name[:200]} needs {needed} elements of {member}, which holds {held}")
        total += count * width
    if total > _SHARED * size:
        raise CheckpointError(f"{path}: its tensors take {total} bytes, and the file has {size}")


def _view(flat: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    if not math.prod(tensor.shape):
        return np.empty(tensor.shape, flat.dtype)
    steps = [step * flat.itemsize for step in tensor.stride]
    return np.ascontiguousarray(
        np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, steps, writeable=False)
    )
