"""Targets: what a model server may answer."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from fuzz_engine import ENGINE
from fuzzing import Target, Violation, a_schema, a_text, damaged, require
from google.protobuf.message import DecodeError

from consumer.events import BadInput
from consumer.extraction.task import Task
from consumer.local.catalog import Refusal
from consumer.local.predict import parse
from consumer.serving.descriptors import PREDICT
from consumer.serving.errors import classify
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.tensors import (
    ENCODINGS,
    Expected,
    GraphContract,
    compact_cells,
    dense_cells,
    read_output,
    write_content,
)

if TYPE_CHECKING:
    from consumer.extraction.window import Cells, Window

_MARKS = ENGINE.tokenizer
GRAPH = GraphContract(77, 8, _MARKS.pad, _MARKS.type, frozenset((_MARKS.classify, _MARKS.multiclassify)))


def _some_windows() -> list[Window]:
    """Windows of a few extractions and classifications, made once."""
    random = Random(1)
    windows: list[Window] = []
    while len(windows) < 40:
        kind = random.choice(("extract", "classify"))
        try:
            windows += ENGINE.start(a_text(random), Task("t", kind, a_schema(random))).windows[:2]  # type: ignore[arg-type]
        except BadInput:
            continue
    return windows


_WINDOWS = _some_windows()


def _typed(proto: Any, array: np.ndarray[Any, Any], number: int) -> None:
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, ENCODINGS[number].field).extend(array.ravel().tolist())


_ODD_SIZES = (-1, 0, 1, 2, 7, 8, 9, 2**31, 2**62)
_ODD_INTS = (-(2**31), -1, 0, 1, 8, 9, 65_535, 65_536, 2**31 - 1)
_ODD_FLOATS = (0.0, -1.0, 1e-40, 3.4e38, float("nan"), float("inf"), float("-inf"))


def _spoil(random: Random, outputs: Any) -> None:
    """One thing that a server, or another model, might do to a tensor."""
    if not outputs:
        return
    name = random.choice(sorted(outputs))
    proto = outputs[name]
    match random.randrange(9):
        case 0:
            del outputs[name]
        case 1:
            proto.dtype = random.choice((*ENCODINGS, 0, 7, 8, 99, 101))
        case 2 if proto.tensor_shape.dim:
            random.choice(list(proto.tensor_shape.dim)).size = random.choice(_ODD_SIZES)
        case 3:
            proto.tensor_shape.dim.add(size=random.choice(_ODD_SIZES))
        case 4:
            proto.tensor_content = damaged(random, proto.tensor_content or b"\x00" * 32)
        case 5:
            proto.tensor_shape.unknown_rank = True
        case 6:
            proto.int_val.extend([random.choice(_ODD_INTS)] * random.choice((1, 8)))
        case 7:
            proto.float_val.extend([random.choice(_ODD_FLOATS)] * random.choice((1, 8)))
        case _:
            proto.half_val.extend([random.choice(_ODD_INTS)] * random.choice((1, 8)))


def an_answer(random: Random) -> tuple[bytes, list[Window], bool]:
    """A PredictResponse to one to three windows, as it should be or not, and whether it is of the dense signature."""
    windows = [random.choice(_WINDOWS) for _ in range(random.choice((1, 1, 2, 3)))]
    draw = np.random.default_rng(random.getrandbits(32))
    dense = random.random() < 0.1
    contract = np.full((1 if dense else len(windows), 1), 77 if random.random() < 0.97 else 78, np.int32)
    arrays: dict[str, np.ndarray[Any, Any]] = {"contract": contract}
    if dense:
        windows = windows[:1]
        length = windows[0].length
        arrays["logits"] = draw.normal(-2, 2, (1, length, length)).astype(np.float32)
    else:
        sizes = np.array([[[window.length, window.length]] for window in windows])
        places = draw.integers(0, sizes, (len(windows), 8, 2), np.int32)
        if random.random() < 0.3:
            places[-1, 0, random.randrange(2)] = random.choice((*_ODD_INTS, windows[-1].length))
        arrays["cells"] = places[:, :, 0] << 16 | places[:, :, 1] & 0xFFFF
        arrays["scores"] = draw.normal(0, 3, (len(windows), 8)).astype(np.float32)
        arrays["count"] = draw.integers(0, 11, (len(windows), 1), np.int32)
    response = PREDICT.response()
    for name, array in arrays.items():
        write = random.randrange(3)
        if write == 0:
            write_content(response.outputs[name], array)
        elif array.dtype == np.float32 and write == 1:
            _typed(response.outputs[name], array.astype(np.float16).view(np.uint16), 19)
        else:
            _typed(response.outputs[name], array, 1 if array.dtype == np.float32 else 3)
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        _spoil(random, response.outputs)
    raw: bytes = response.SerializeToString()
    return damaged(random, raw) if random.random() < 0.3 else raw, windows, dense


def check_answer(given: tuple[bytes, list[Window], bool]) -> str:
    raw, windows, dense = given
    try:
        response = PREDICT.response.FromString(raw)
    except DecodeError:
        return "no message"
    try:
        if dense:
            _check_cells(dense_cells(response.outputs, windows[0], windows[0].length, GRAPH), windows[0])
            return "dense cells"
        cells, overflowed = compact_cells(response.outputs, windows, GRAPH)
    except ServingError as error:
        require(error.failure is Failure.DEPLOYMENT and error.code in ("CONTRACT", "ANSWER"), f"{error.code}")
        require(0 < len(error.message) < 2000, f"a message of {len(error.message)} characters")
        return error.code
    require(len(cells) == len(windows), "another number of windows")
    require(all(0 <= index < len(windows) for index in overflowed), "an index")
    for found, window in zip(cells, windows, strict=True):
        require(len(found.rows) <= GRAPH.cells_per_window, "more cells than the signature returns")
        _check_cells(found, window)
    return "overflow" if overflowed else "cells"


def _check_cells(cells: Cells, window: Window) -> None:
    rows, columns, logits = cells
    require(len(rows) == len(columns) == len(logits), "arrays of different lengths")
    require(np.isfinite(logits).all(), "a logit that is not finite")
    for places in (rows, columns):
        require(((places >= 0) & (places < window.length)).all(), "a cell outside its window")


# -- single tensors ---------------------------------------------------------------------------------------------------

_PROTO = type(PREDICT.request().inputs["x"])


def a_tensor(random: Random) -> bytes:
    """A TensorProto of any dtype and shape, whole or spoilt."""
    request = PREDICT.request()
    proto = request.inputs["x"]
    number = random.choice((*ENCODINGS, 1, 1, 3, 3, 0, 7))
    proto.dtype = number
    shape = random.choice(((), (0,), (1,), (2, 3), (2, 3), (3, 2), (1, 1, 1)))
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    count = int(np.prod(shape))
    if number in ENCODINGS:
        encoding = ENCODINGS[number]
        if random.random() < 0.5:
            proto.tensor_content = random.randbytes(count * encoding.wire.itemsize)
        else:
            field = getattr(proto, encoding.field)
            odd: Any = _ODD_FLOATS if encoding.field in ("float_val", "double_val") else (0, 1, 255, 70_000)
            if encoding.field == "bool_val":
                odd = (True, False)
            elif encoding.field in ("int_val", "half_val"):
                odd = _ODD_INTS
            field.extend([random.choice(odd) for _ in range(random.choice((count, count, 0, 1, count + 1)))])
    for _ in range(random.choice((0, 1, 2))):
        if "x" in request.inputs:
            _spoil(random, request.inputs)
    raw: bytes = request.inputs["x"].SerializeToString()
    return damaged(random, raw) if random.random() < 0.2 else raw


def check_tensor(raw: bytes) -> str:
    try:
        proto = _PROTO.FromString(raw)
    except DecodeError:
        return "no message"
    read = "refused"
    for dtype in (np.int32, np.float32):
        expected = Expected(dtype, (2, 3))
        try:
            array = read_output({"x": proto}, "x", expected)
        except ServingError as error:
            require(error.failure is Failure.DEPLOYMENT and error.code == "ANSWER", f"{error.code}")
            continue
        require(array.shape == (2, 3) and array.dtype == dtype, f"{array.dtype} {array.shape}")
        require(np.isfinite(array).all(), "a value that is not finite")
        read = "read"
    if np.prod([float(dim.size) for dim in proto.tensor_shape.dim]) > 1e6:
        return f"{read}, huge"  # the local server, like the real one, would fill it up
    try:
        parse("x", proto)
    except Refusal:
        return f"{read}, refused as an input"
    return f"{read}, taken as an input"


# -- refusals ---------------------------------------------------------------------------------------------------------

_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_SAID = (
    "Signature input alias: x", "input size does not match signature", "output tensor alias not found in signature",
    "Task size 9 is larger than maximum input batch size 8", "Unrecognized servable version label: x",
    "Missing ModelSpec", "Batching Run() input tensors must have", "Expects arg[0] to be int32 but float is provided",
    "Servable not found for request: Latest(x)", "Could not find version 3 of model x",
    "OOM when allocating tensor", "Serving signature key", "Server Threadpool Exhausted",
    "message larger than max (7 vs. 4)", "different shapes and padding is turned off",
    "indices[0,0] = 9 is not in [0, 5)", "", "Socket closed", "CERTIFICATE_VERIFY_FAILED",
)  # fmt: skip


def a_refusal(random: Random) -> tuple[str, str]:
    said = damaged(random, random.choice(_SAID).encode(), [text.encode() for text in _SAID]).decode(errors="replace")
    return random.choice(_CODES) if random.random() < 0.97 else a_text(random, 2), said


def check_refusal(given: tuple[str, str]) -> str:
    code, message = given
    failure, relief = classify(code, message)
    require(isinstance(failure, Failure) and isinstance(relief, Relief), "not a class")
    require(relief is Relief.NONE or failure is Failure.TRANSIENT, "relief for what is not transient")
    if failure is Failure.BATCH_FAULT and code != "INVALID_ARGUMENT":
        raise Violation(f"{code} blames a window")  # only an error about the batch's content may
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED", "ABORTED"):
        require(failure is Failure.TRANSIENT, f"{code} is {failure.value}")
    return f"{failure.value}, {relief.value}"


TARGETS = (
    Target("answers", 40, an_answer, check_answer),
    Target("tensors", 50, a_tensor, check_tensor),
    Target("refusals", 60, a_refusal, check_refusal),
)
