"""What a pickled state dict describes, without running or believing it.

``torch.save`` writes names, shapes and storages as a pickle. A pickle may call anything it can name, and even without
calls a few bytes may ask for any amount of memory (an index of its memo, a length, a dictionary copied again and
again) or time (keys that take for ever to hash). So none is run: the opcodes that such a description is made of are
read one by one, each in time and memory of its own size, and all others are refused.
"""

from __future__ import annotations

import math
import pickletools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consumer.model.encoder_config import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

STORAGES: Final = {
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
"""Name in ``torch`` -> dtype, numpy's or ``bfloat16``."""

MOST_TENSORS: Final = 20_000
MOST_DIMENSIONS: Final = 64
_MOST_OPCODES: Final = 50 * MOST_TENSORS
"""A tensor takes about 35."""

_MARK: Final = object()
_DICTIONARY: Final = object()
"""Stands for ``collections.OrderedDict``, which becomes a dict: its attributes (torch adds versions) are dropped."""
_REBUILD: Final = object()
"""Stands for ``torch._utils._rebuild_tensor_v2``."""


class _StorageType(NamedTuple):
    """Stands for ``torch.FloatStorage`` and its like."""

    dtype: str


class Storage(NamedTuple):
    """Values of one dtype, in the archive's member ``data/<key>``."""

    dtype: str
    key: str
    elements: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements. Not compared with the storage's size."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors that a pickle describes, by name. ``path`` is for messages.

    Raises CheckpointError for one that names anything but tensors and dictionaries, is damaged or too large.
    """
    machine = _Machine(path)
    try:
        state = machine.run(content)
    except (ValueError, LookupError, TypeError) as error:  # cut off, or an order that makes no sense
        raise CheckpointError(f"{path}: its pickle cannot be read: {type(error).__name__}") from None
    if type(state) is not dict:
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected a state dict of tensors")
    strange = [repr(name[:60]) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"{path}: entries that are not tensors: {', '.join(strange[:8])}; save a plain state dict"
        )
    if len(state) > MOST_TENSORS:
        raise CheckpointError(f"{path} holds {len(state)} tensors; supported: {MOST_TENSORS}")
    return state


class _Machine:
    """Pickle's stack and memo, for the opcodes of a state dict."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= _MOST_OPCODES:
                raise CheckpointError(f"{self._path}: its pickle has more than {_MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE" | "UNICODE"
            ):
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(name[-1])
                if len(stack) < size:
                    raise LookupError
                stack[-size:] = [tuple(stack[-size:])]
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[argument])
            case "APPEND":
                last = stack.pop()
                _of(list, stack[-1]).append(last)
            case "APPENDS":
                items = self._since_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                value = stack.pop()
                self._set([stack.pop(), value])
            case "SETITEMS":
                self._set(self._since_mark())
            case "GLOBAL":
                stack.append(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute = _of(str, stack.pop())
                stack.append(self._named(_of(str, stack.pop()), attribute))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(self._called(stack.pop(), arguments))
            case "BUILD":
                stack.pop()
                _of(dict, stack[-1])
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case _:
                raise CheckpointError(f"{self._path}: its pickle has the opcode {name}, which no state dict needs")

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _set(self, items: list[Any]) -> None:
        target = _of(dict, self._stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_of(str, key)] = value  # text alone: hashing a nested tuple may take for ever

    def _named(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return _DICTIONARY
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _REBUILD
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        raise CheckpointError(
            f"{self._path}: its pickle names {f'{module}.{name}'[:200]}, which is refused: only tensors and ordered"
            " dictionaries are read. Save a plain state dict (torch.save(model.state_dict(), ...)) or convert it to"
            " safetensors"
        )

    def _called(self, what: object, arguments: Any) -> object:
        if what is _DICTIONARY and arguments == ():
            return {}
        if what is not _REBUILD:
            raise CheckpointError(f"{self._path}: its pickle calls what is no function for tensors")
        match arguments:
            case (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
                if len(shape) == len(stride) <= MOST_DIMENSIONS:
                    numbers = (offset, *shape, *stride)
                    whole = all(type(number) is int and 0 <= number < 2**40 for number in numbers)
                    # Where one size is 0, others may still be more than an array can have.
                    if whole and math.prod(max(size, 1) for size in shape) < 2**48:
                        return Tensor(storage, offset, shape, stride)
        raise CheckpointError(f"{self._path}: its pickle holds a tensor with impossible shape, stride or offset")

    def _storage(self, reference: object) -> Storage:
        match reference:
            case ("storage", _StorageType(dtype=dtype), str(key), str(), int(elements)) if "/" not in key:
                if len(key) <= 60 and 0 <= elements < 2**40:
                    return Storage(dtype, key, elements)
        raise CheckpointError(f"{self._path}: its pickle holds a storage reference that is not PyTorch's")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value
