"""Target: weights files as PyTorch writes them, damaged, or with sizes that nothing stands behind."""

from __future__ import annotations

import io
import pickle
import re
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from fuzzing import Target, damaged, require

from consumer.model.encoder_config import CheckpointError
from consumer.model.torch_zip import read_torch_zip

if TYPE_CHECKING:
    from random import Random

_FOLDER = tempfile.TemporaryDirectory(prefix="rexstream-fuzz-")
_FILE = Path(_FOLDER.name) / "pytorch_model.bin"

_STORAGES = ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "BoolStorage", "QInt8Storage")
_SIZES = (0, 1, 1, 2, 2, 3, 5, 8, 255, 65_536, 2**31, 2**40 - 1, 2**40, 2**63, -1, -(2**31))
_OPCODES = (
    b"r\xff\xff\xff\x7f", b"\x96\x00\x00\x00\x00\x00\x01\x00\x00", b"\x8e\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\x8b\xff\xff\xff\x7f", b"\x95\xff\xff\xff\xff\xff\x00\x00\x00", b"j\xff\xff\xff\x7f", b"h\x00", b"q\x00", b"(",
    b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"Q", b"s", b"u", b"}", b"]", b")", b"e", b"a", b"2", b"0", b"1",
    b"cos\nsystem\n", b"ctorch\nFloatStorage\n", b"\x93", b"\x94", b"I9999999999\n", b"F1e999\n", b"N", b"\x88", b".",
    b"\x80\x05", b"P1\n", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"p4294967296\n",
)  # fmt: skip


def _opcodes(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1].replace(b"q\x00", b"")


def _tensor(random: Random, key: str, elements: int) -> bytes:
    """Mostly the whole storage as a vector or a matrix; at times any numbers."""
    shape, stride, offset = [elements], [1], 0
    if random.random() < 0.3:
        shape = [random.choice(_SIZES) for _ in range(random.choice((0, 1, 2, 2, 3, 70)))]
        stride = [random.choice(_SIZES) for _ in range(len(shape) + random.choice((0, 0, 0, 0, 1)))]
        offset = random.choice(_SIZES)
        elements = random.choice((elements, random.choice(_SIZES)))
    storage = b"ctorch\n" + random.choice(_STORAGES).encode() + b"\n"
    reference = b"(" + _opcodes("storage") + storage + _opcodes(key) + _opcodes("cpu") + _opcodes(elements) + b"tQ"
    numbers = b"".join(b"(" + b"".join(map(_opcodes, many)) + b"t" for many in (shape, stride))
    rest = _opcodes(offset) + numbers + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + rest + b"tR"


def a_weights_file(random: Random) -> bytes:
    keys = [str(number) for number in range(random.choice((1, 1, 2, 4)))]
    storages = {key: random.randbytes(8 * random.choice((0, 1, 2, 4, 9))) for key in keys}
    tensors = [(key, _tensor(random, key, len(storages[key]) // random.choice((1, 2, 4, 4, 8)))) for key in keys]
    entries = b"".join(_opcodes(f"t{key}") + code for key, code in tensors)
    description = b"\x80\x02}(" + entries + b"u."
    if random.random() < 0.4:
        description = damaged(random, description, _OPCODES, description)
    members = {"m/data.pkl": description, **{f"m/data/{key}": content for key, content in storages.items()}}
    if random.random() < 0.1:
        members["m/byteorder"] = random.choice((b"little", b"big", b""))
    content = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if random.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    whole = content.getvalue()
    return damaged(random, whole, (), whole) if random.random() < 0.3 else whole


def check_weights_file(body: bytes) -> str:
    _FILE.write_bytes(body)
    tracemalloc.start()
    try:
        arrays = dict(read_torch_zip(_FILE))
        outcome = "weights" if arrays else "no weights"
        read = sum(array.nbytes for array in arrays.values())
        require(read <= 8 * len(body), f"{read} bytes of arrays from {len(body)}")
    except CheckpointError as error:
        require(len(str(error)) < 2000, f"a message of {len(str(error))} characters")
        str(error).encode(errors="strict")
        words = re.findall(r"[A-Za-z]{2,}", str(error).removeprefix(str(_FILE)).replace("m/data", ""))
        outcome = " ".join(words[: 3 if "pickle" in words else 2])
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    require(peak < 2**20 + 64 * len(body), f"{peak} bytes of memory for {len(body)}")
    return outcome


TARGETS = (Target("weights-files", 20, a_weights_file, check_weights_file),)
