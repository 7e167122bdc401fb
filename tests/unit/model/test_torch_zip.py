"""pytorch_model.bin is data: nothing in it is run, and whatever is not a tensor is refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.model.encoder_config import CheckpointError
from consumer.model.torch_zip import read_torch_zip

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model

FLOATS = np.arange(6, dtype="<f4")


def archive(folder: Path, description: bytes, members: dict[str, bytes] | None = None) -> Path:
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", description)
        for name, content in (members or {"data/0": FLOATS.tobytes()}).items():
            file.writestr(f"m/{name}", content)
    return path


def tensor(
    shape: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    offset: int = 0,
    key: str = "0",
    count: int = 6,
    storage: bytes = b"ctorch\nFloatStorage\n",
) -> bytes:
    """The opcodes of one tensor."""

    def value(item: object) -> bytes:
        return pickle.dumps(item, protocol=2)[2:-1].replace(b"q\x00", b"")

    pid = b"(" + value("storage") + storage + value(key) + value("cpu") + value(count) + b"tQ"
    rest = value(offset) + b"".join(b"(" + b"".join(map(value, numbers)) + b"t" for numbers in (shape, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + b"\x89ccollections\nOrderedDict\n)RtR"


def state(*opcodes: bytes) -> bytes:
    """A dict with the entries t0, t1, ..."""
    entries = b"".join(f"V t{i}\n".replace(" ", "").encode() + code for i, code in enumerate(opcodes))
    return b"\x80\x02}(" + entries + b"u."


def read(path: Path) -> dict[str, Any]:
    return dict(read_torch_zip(path))


def test_a_tensor_is_read_through_its_stride_and_offset(tmp_path: Path) -> None:
    """Views come out as the arrays that PyTorch would show, in memory of their own."""
    path = archive(tmp_path, state(tensor(), tensor((3, 2), (1, 3)), tensor((2,), (2,), 1), tensor((), (), 4)))
    found = read(path)
    np.testing.assert_array_equal(found["t0"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["t1"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["t2"], [1, 3])
    assert found["t3"] == 4
    assert all(array.flags.c_contiguous for array in found.values())


class Bomb:
    """What an attacker would pickle."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_that_runs_a_command_is_refused_and_does_not_run(tmp_path: Path) -> None:
    """The command would leave a file; with the ordinary unpickler it does, with ours it never starts."""
    target = tmp_path / "owned"
    description = pickle.dumps({"weight": Bomb(target)}, protocol=2)
    with pytest.raises(CheckpointError, match=r"names (posix|nt)\.system, which is refused"):
        read(archive(tmp_path, description))
    assert not target.exists()
    pickle.loads(description)
    assert target.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "torch load",
        "torch._utils _rebuild_parameter",
        "collections Counter",
        "numpy.core.multiarray _reconstruct",
        "torch FloatStorage.__init__",
        "consumer.model.torch_zip to_array",
    ],
)
def test_every_other_name_is_refused(tmp_path: Path, name: str) -> None:
    """Only tensors, their storages and ordered dictionaries have a meaning."""
    module, attribute = name.split(" ", 1)
    code = b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"
    with pytest.raises(CheckpointError) as error:
        read(archive(tmp_path, state(code)))
    assert f"names {module}.{attribute}, which is refused" in str(error.value)
    assert "convert it to safetensors" in str(error.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (tensor((2, 4), (3, 1)), "needs 7 elements"),
        (tensor(offset=1), "needs 7 elements"),
        (tensor((1,), (1,), 2**33), "needs 8589934593 elements"),
        (tensor(count=99), "which holds 6"),
        (tensor(stride=(-3, 1)), "impossible shape, stride or offset"),
        (tensor(shape=(2,)), "impossible shape, stride or offset"),
        (tensor(key="1"), r"the bytes of t0 \(m/data/1\) are missing"),
        (tensor(key="../data/0"), "storage reference"),
        (tensor(storage=b"\x8c\x05float"), "storage reference"),
        (tensor(storage=b"ctorch\nDoubleStorage\n"), "needs 6 elements of m/data/0, which holds 3"),
        (b"K\x05", "entries that are not tensors: 't0'"),
    ],
)
def test_descriptions_that_do_not_fit_their_bytes(tmp_path: Path, code: bytes, message: str) -> None:
    """A tensor can only reach into the storage that it names."""
    with pytest.raises(CheckpointError, match=message):
        read(archive(tmp_path, state(code)))


def test_attributes_of_the_dictionary_cannot_take_over_its_methods(tmp_path: Path) -> None:
    """A state dict carries attributes; one called items is nothing but an attribute."""
    plain = state(tensor())[2:-1].replace(b"}", b"ccollections\nOrderedDict\n)R", 1)
    path = archive(tmp_path, b"\x80\x02" + plain + b"}(Vitems\nK\x07ub.")
    assert list(read(path)) == ["t0"]


def test_not_a_dictionary(tmp_path: Path) -> None:
    """A pickled list says that a state dict is expected."""
    with pytest.raises(CheckpointError, match="holds a list; expected a state dict"):
        read(archive(tmp_path, b"\x80\x02]."))


def test_a_damaged_description(tmp_path: Path) -> None:
    """A pickle that ends too early is reported with its member."""
    with pytest.raises(CheckpointError, match=r"m/data\.pkl cannot be read"):
        read(archive(tmp_path, state(tensor())[:-3]))


def test_the_format_before_1_6(tmp_path: Path) -> None:
    """The older format is not a zip; the error says how to get out of it."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickle.dumps(OrderedDict()))
    with pytest.raises(CheckpointError, match="load and save it again with a current PyTorch"):
        read(path)


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    """Bytes in the other order would be read as other numbers."""
    path = archive(tmp_path, state(tensor()), {"data/0": FLOATS.tobytes(), "byteorder": b"big"})
    with pytest.raises(CheckpointError, match="big-endian"):
        read(path)


def test_an_archive_without_a_description(tmp_path: Path) -> None:
    """Any other zip is refused."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("readme.txt", "nothing")
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match=r"holds 0 members named \*/data\.pkl"):
        read(path)
