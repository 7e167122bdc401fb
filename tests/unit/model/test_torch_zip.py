"""pytorch_model.bin is data: nothing in it is run, and whatever is not a tensor is refused."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumer.model.encoder_config import CheckpointError
from consumer.model.torch_zip import read_torch_zip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.model

FLOATS = np.arange(6, dtype="<f4")


def archive(
    folder: Path, description: bytes, members: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> Path:
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", method) as file:
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
        (tensor((2, 4), (3, 1)), "needs 8 elements"),
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
    with pytest.raises(CheckpointError, match="its pickle cannot be read"):
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


def memory(read_it: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held at once, on top of what they held before."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_it()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MEGABYTE = 2**20
DICTIONARY = b"ccollections\nOrderedDict\n"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(tensor((2**36,), (0,)), id="one element, repeated"),
        pytest.param(tensor((2**18, 2**18), (0, 0)), id="in two dimensions"),
        pytest.param(tensor((7,), (0,)), id="one more than there is"),
        pytest.param(tensor((4, 4), (1, 1)), id="overlapping rows"),
        pytest.param(tensor((0, 2**39, 2**39), (1, 1, 1)), id="nothing, and too much of it"),
        pytest.param(tensor((1,) * 65, (1,) * 65), id="too many dimensions"),
        pytest.param(tensor((-1, -6), (1, 1)), id="negative sizes"),
        pytest.param(tensor(count=2**50), id="a storage larger than any"),
        pytest.param(tensor(count=-1), id="a negative storage"),
        pytest.param(b"N" + b"r" + (2**31 - 1).to_bytes(4, "little"), id="a memo index"),
        pytest.param(b"\x96" + (2**40).to_bytes(8, "little"), id="a bytearray of a terabyte"),
        pytest.param(b"\x8e" + (2**40).to_bytes(8, "little"), id="bytes of a terabyte"),
        pytest.param(b"\x8b" + (2**31 - 1).to_bytes(4, "little"), id="a number of two gigabytes"),
        pytest.param(b"I" + b"9" * 5000 + b"\n", id="a number of 5,000 digits"),
    ],
)
def test_a_few_bytes_do_not_get_much_memory(tmp_path: Path, code: bytes) -> None:
    """Sizes are compared with what is there; what a state dict does not need is refused by its name."""
    path = archive(tmp_path, state(code))
    assert path.stat().st_size < 10_000
    assert memory(lambda: read(path)) < MEGABYTE


def test_a_compressed_member_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """A gigabyte of zeros would take a megabyte of file. PyTorch compresses nothing."""
    many = {"data/0": bytes(64 * MEGABYTE)}
    path = archive(tmp_path, state(tensor((1,), (1,))), many, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MEGABYTE
    with pytest.raises(CheckpointError, match="compressed"):
        read(path)
    assert memory(lambda: read(path)) < MEGABYTE


def test_copies_of_copies_take_no_memory(tmp_path: Path) -> None:
    """A dictionary that is filled once and copied by a few bytes each; as arguments, or as attributes."""
    entries = b"".join(b"X\x06\x00\x00\x00%06dN" % number for number in range(10_000))
    filled = b"}(" + entries + b"uq\x01"
    for copies in (b"(" + DICTIONARY + b"h\x01\x85R", b"(" + DICTIONARY + b")Rh\x01b"):
        path = archive(tmp_path, b"\x80\x02" + filled + copies[1:] * 3000 + b"N.")
        assert memory(partial(read, path)) < 12 * MEGABYTE


def test_keys_that_take_for_ever_to_hash_or_to_show_are_not_hashed_nor_shown(tmp_path: Path) -> None:
    """A tuple of a tuple twice, of a tuple twice, ...: sixty levels in 300 bytes. As key, as name, as reference."""
    nested = b")" + b"q\x00h\x00\x86" * 60
    for code in (b"}" + nested + b"Ns.", b"}X\x01\x00\x00\x00a" + nested + b"s.", nested + b"Q.", nested + b"."):
        with pytest.raises(CheckpointError) as caught:
            read(archive(tmp_path, b"\x80\x02" + code))
        assert len(str(caught.value)) < 500


def test_a_storage_is_not_read_for_a_thousand_tensors_that_are_nearly_as_large(tmp_path: Path) -> None:
    """Tied weights share storages; a thousand times the file is no checkpoint."""
    content = {"data/0": bytes(MEGABYTE)}
    one = tensor((2**18,), (1,), count=2**18)
    assert len(read(archive(tmp_path, state(one, one, one), content))) == 3
    with pytest.raises(CheckpointError, match="its tensors take 1048576000 bytes, and the file has"):
        read(archive(tmp_path, state(*[one] * 1000), content))


def test_a_storage_has_one_dtype_and_whole_elements(tmp_path: Path) -> None:
    """Bytes are no two kinds of numbers."""
    with pytest.raises(CheckpointError, match="no whole"):
        read(archive(tmp_path, state(tensor(), tensor(storage=b"ctorch\nIntStorage\n"))))
    with pytest.raises(CheckpointError, match="holds 23 bytes"):
        read(archive(tmp_path, state(tensor()), {"data/0": FLOATS.tobytes()[:-1]}))


def test_directories_that_lie(tmp_path: Path) -> None:
    """A member that claims more than the file has, one name twice, a million members."""
    path = archive(tmp_path, state(tensor()))
    content = path.read_bytes()
    size = (24).to_bytes(4, "little") * 2
    at = content.rindex(size, 0, content.rindex(b"m/data/0"))
    path.write_bytes(content[:at] + (2**31).to_bytes(4, "little") * 2 + content[at + 8 :])
    assert memory(lambda: read(path)) < MEGABYTE
    twice = zipfile.ZipFile(archive(tmp_path, state(tensor())), "a")
    with twice as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("m/data/0", FLOATS.tobytes())
    with pytest.raises(CheckpointError, match="3 members, 2 names"):
        read(path)


def test_versions_of_layers_are_passed_over(tmp_path: Path) -> None:
    """What torch adds to a module's state as an attribute: dictionaries in a dictionary; and protocol 4."""
    entries = {"t0": {"version": 1}}
    plain = state(tensor())[2:-1].replace(b"}", DICTIONARY + b")R", 1)
    metadata = pickle.dumps({"_metadata": entries}, protocol=2)[2:-1]
    assert list(read(archive(tmp_path, b"\x80\x02" + plain + metadata + b"b."))) == ["t0"]
    framed = b"\x80\x04\x95" + (len(plain) + 1).to_bytes(8, "little") + plain + b"."
    assert list(read(archive(tmp_path, framed))) == ["t0"]
