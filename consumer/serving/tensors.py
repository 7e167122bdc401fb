"""Windows to the padded tensors of the model's signatures, and their outputs to cells, checked.

numpy arrays are written to and read from TensorProto straight, in either of its two encodings.

TensorFlow Serving answers with typed fields (``int_val``, ``float_val``, ``half_val``) up to r2.18 and can answer with
``tensor_content`` from r2.19; a request is always ``tensor_content`` of the exact length, because the server silently
accepts too few or too many typed values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumer.extraction.window import Cells
from consumer.serving.protocol import Failure, ServingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from consumer.extraction.prompts import IntArray
    from consumer.extraction.window import FloatArray, Window
    from consumer.serving.bundle import Bundle


class Encoding(NamedTuple):
    """How TensorProto carries one dtype. ``wire`` is the little-endian numpy dtype of ``tensor_content``."""

    name: str
    number: int
    wire: np.dtype[Any]
    field: str
    """The typed field. ``half_val`` holds the 16 bits of a half or a bfloat16 as an integer."""


BFLOAT16 = 14
HALF = 19

ENCODINGS = {
    number: Encoding(name, number, np.dtype(wire).newbyteorder("<"), field)
    for name, number, wire, field in (
        ("float", 1, np.float32, "float_val"),
        ("double", 2, np.float64, "double_val"),
        ("int32", 3, np.int32, "int_val"),
        ("uint8", 4, np.uint8, "int_val"),
        ("int16", 5, np.int16, "int_val"),
        ("int8", 6, np.int8, "int_val"),
        ("int64", 9, np.int64, "int64_val"),
        ("bool", 10, np.bool_, "bool_val"),
        ("bfloat16", BFLOAT16, np.uint16, "half_val"),
        ("uint16", 17, np.uint16, "int_val"),
        ("half", HALF, np.float16, "half_val"),
        ("uint32", 22, np.uint32, "uint32_val"),
        ("uint64", 23, np.uint64, "uint64_val"),
    )
}
"""By TensorFlow's DataType number. numpy has no bfloat16: its bits travel as uint16."""

_NUMBERS = {encoding.wire: number for number, encoding in ENCODINGS.items() if number != BFLOAT16}


def write_content(proto: Any, array: NDArray[Any]) -> None:
    """Fill an empty TensorProto with an array, as ``tensor_content``. Raises KeyError for a dtype without encoding."""
    number = _NUMBERS[array.dtype.newbyteorder("<")]
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    proto.tensor_content = np.ascontiguousarray(array, ENCODINGS[number].wire).tobytes()


def shape_of(proto: Any) -> tuple[int, ...]:
    """The shape of a TensorProto; -1 for a size that it leaves open."""
    return tuple(dim.size for dim in proto.tensor_shape.dim)


def typed_values(proto: Any, encoding: Encoding) -> NDArray[Any]:
    """The values of the typed field, as many as there are, in ``encoding.wire``.

    Small integers and halves travel in 32 bits; those that are too large are cut, as TensorFlow cuts them.
    """
    field = getattr(proto, encoding.field)
    if encoding.field == "half_val":
        return np.array(field, np.int32).astype(np.uint16).view(encoding.wire)
    if encoding.field == "int_val":
        return np.array(field, np.int32).astype(encoding.wire, copy=False)
    return np.array(field, encoding.wire)


class Expected(NamedTuple):
    """The dtype and shape that an output must have."""

    dtype: type[np.int32] | type[np.float32]
    shape: tuple[int, ...]


def read_output(outputs: Mapping[str, Any], name: str, expected: Expected) -> NDArray[Any]:
    """An output of a response as an array, read-only or not.

    Half and bfloat16 are widened where float32 is expected. Raises ServingError (DEPLOYMENT, ``ANSWER``) when the
    output is absent, of another dtype or shape, holds another number of values than its shape, or is not finite.
    """
    if name not in outputs:
        raise bad_answer(f"the answer has no output {name!r}, only {', '.join(sorted(outputs)) or 'none'}")
    proto = outputs[name]
    encoding = ENCODINGS.get(proto.dtype)
    floating = expected.dtype is np.float32
    allowed = ("float", "half", "bfloat16") if floating else ("int32",)
    if encoding is None or encoding.name not in allowed:
        found = encoding.name if encoding else f"of TensorFlow's dtype number {proto.dtype}"
        raise bad_answer(f"output {name!r} is {found}, not {' or '.join(allowed)}")
    shape = shape_of(proto)
    if shape != expected.shape or proto.tensor_shape.unknown_rank:
        raise bad_answer(f"output {name!r} has shape {list(shape)}, not {list(expected.shape)}")
    count = math.prod(shape)
    if content := proto.tensor_content:  # a copy each time that it is asked for
        if len(content) != count * encoding.wire.itemsize:
            raise bad_answer(f"output {name!r} holds {len(content)} bytes for shape {list(shape)}")
        values = np.frombuffer(content, encoding.wire)
    else:
        values = typed_values(proto, encoding)
        if len(values) != count:
            raise bad_answer(f"output {name!r} holds {len(values)} values for shape {list(shape)}")
    if encoding.number == BFLOAT16:
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    array = values.astype(expected.dtype, copy=False).reshape(shape)
    if floating and not np.isfinite(array).all():
        raise bad_answer(f"output {name!r} holds values that are not finite")
    return array


def bad_answer(what: str) -> ServingError:
    """The failure for an answer that the signature does not allow."""
    return ServingError(
        Failure.DEPLOYMENT,
        "ANSWER",
        f"{what}; serve a model that 'rexstream export' wrote, in the version that model.bundle belongs to",
    )


PAD_SEGMENT = -1


def pad(windows: Sequence[Window], padded_length: int, pad_id: int) -> dict[str, IntArray]:
    """The inputs of both signatures, int32: three tensors [B, padded_length] and two [B, 1].

    Behind a window stand ``pad_id``, segment -1 and positions that count on from its last one, as the model was
    trained (docs/extraction.md, section 8). Raises ValueError for no windows or one longer than ``padded_length``.
    """
    if not windows:
        raise ValueError("a batch needs at least one window")
    rows = len(windows)
    lengths = [window.length for window in windows]
    longest = max(lengths)
    if longest > padded_length:
        raise ValueError(f"a window of {longest} tokens does not fit a padded length of {padded_length}")
    length = np.array(lengths, np.int32)[:, None]
    input_ids, segment = np.empty((rows, padded_length), np.int32), np.empty((rows, padded_length), np.int32)
    input_ids.fill(pad_id)
    segment.fill(PAD_SEGMENT)
    last = np.array([window.position_ids.item(-1) for window in windows], np.int32)[:, None]
    position_ids = np.arange(1, padded_length + 1, dtype=np.int32) + (last - length)
    for row, (window, end) in enumerate(zip(windows, lengths, strict=True)):
        input_ids[row, :end] = window.input_ids
        segment[row, :end] = window.segment
        position_ids[row, :end] = window.position_ids
    return {
        "input_ids": input_ids,
        "segment": segment,
        "position_ids": position_ids,
        "length": length,
        "text_start": np.array([window.text_start for window in windows], np.int32)[:, None],
    }


class GraphContract(NamedTuple):
    """What the exported graph and this worker must agree on, from the worker's bundle."""

    contract: int
    """Hash of tokenizer, limits and K (``consumer.extraction.prompts``)."""
    cells_per_window: int
    pad: int
    """Token id of the padding; the fields below are token ids too."""
    type: int
    classification: frozenset[int]

    @classmethod
    def of(cls, bundle: Bundle) -> GraphContract:
        """From an exported bundle."""
        tokenizer = bundle.tokenizer
        classification = frozenset((tokenizer.classify, tokenizer.multiclassify))
        return cls(bundle.contract, bundle.cells_per_window, tokenizer.pad, tokenizer.type, classification)


def check_contract(outputs: Mapping[str, Any], rows: int, graph: GraphContract) -> None:
    """Raise ServingError (DEPLOYMENT, ``CONTRACT``) unless every row carries the bundle's hash."""
    found = read_output(outputs, "contract", Expected(np.int32, (rows, 1)))
    if (found != graph.contract).any():
        other = int(found[found != graph.contract][0])
        raise ServingError(
            Failure.DEPLOYMENT,
            "CONTRACT",
            f"the model was exported with contract {other}, the bundle with {graph.contract}: tokenizer, limits or "
            "cell count differ",
        )


def compact_cells(
    outputs: Mapping[str, Any], windows: Sequence[Window], graph: GraphContract
) -> tuple[list[Cells], list[int]]:
    """Cells of every window, and the indexes of those that found more than K (their cells are cut off at K).

    Raises ServingError (DEPLOYMENT, ``CONTRACT`` or ``ANSWER``).
    """
    rows, limit = len(windows), graph.cells_per_window
    check_contract(outputs, rows, graph)
    count = read_output(outputs, "count", Expected(np.int32, (rows, 1)))[:, 0]
    cells = read_output(outputs, "cells", Expected(np.int32, (rows, limit)))
    scores = read_output(outputs, "scores", Expected(np.float32, (rows, limit)))
    counts: list[int] = count.tolist()
    if min(counts) < 0:
        raise bad_answer(f"output 'count' holds {min(counts)}")
    most = min(max(counts), limit)  # few of the K cells are used
    cells, scores = cells[:, :most], scores[:, :most]
    cell_rows, cell_columns = cells >> 16, cells & 0xFFFF
    lengths = np.array([window.length for window in windows], np.int32)[:, None]
    inside = (cell_rows >= 0) & (cell_rows < lengths) & (cell_columns < lengths)
    used = np.arange(most) < count[:, None]
    if (used & ~inside).any():
        raise bad_answer("output 'cells' names a cell outside its window")
    # Copies: a view would keep the arrays of the whole batch as long as one window's answer waits.
    each = zip(cell_rows, cell_columns, scores, counts, strict=True)
    found = [Cells(r[:n].copy(), c[:n].copy(), s[:n].copy()) for r, c, s, n in each]
    return found, [row for row, n in enumerate(counts) if n > limit]


def dense_cells(outputs: Mapping[str, Any], window: Window, padded_length: int, graph: GraphContract) -> Cells:
    """Cells of the one window that was sent to the dense signature. Raises ServingError as ``compact_cells``."""
    check_contract(outputs, 1, graph)
    shape = (1, padded_length, padded_length)
    return legal_cells(window, read_output(outputs, "logits", Expected(np.float32, shape))[0], graph)


def legal_cells(window: Window, logits: FloatArray, graph: GraphContract) -> Cells:
    """The cells that the compact signature would return if it had no limit, in the same order.

    ``logits`` is at least [L, L]. Legal are text x text with row <= column, text x [TYPE] and [TYPE] x text; text is
    [text_start, L - 1), without the final [SEP]; only the hint's [TYPE] tokens count. A text that starts with a
    classification marker has the marker's own cells first, whatever their sign; all others must be above 0.
    """
    length, start = window.length, window.text_start
    types = np.flatnonzero((window.input_ids[:start] == graph.type) & (window.segment[:start] > 0))
    text = np.arange(start, length - 1)
    legal = np.zeros((length, length), np.bool_)
    legal[np.ix_(text, text)] = np.triu(np.ones((len(text), len(text)), np.bool_))
    legal[np.ix_(text, types)] = True
    legal[np.ix_(types, text)] = True
    own = logits[:length, :length]
    if len(text) and int(window.input_ids[start]) in graph.classification:
        marker = np.full(len(types), start)
        always = (np.concatenate(([start], marker, types)), np.concatenate(([start], types, marker)))
    else:
        always = (np.empty(0, np.intp), np.empty(0, np.intp))
    legal[always] = False
    rows, columns = np.nonzero(legal & (own > 0))
    rows, columns = np.concatenate((always[0], rows)), np.concatenate((always[1], columns))
    return Cells(rows.astype(np.int32), columns.astype(np.int32), own[rows, columns].astype(np.float32))
