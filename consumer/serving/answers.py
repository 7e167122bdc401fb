"""Outputs of the two signatures to cells, believed only after they were checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumer.extraction.window import Cells
from consumer.serving.protocol import Failure, ServingError
from consumer.serving.tensors import Expected, bad_answer, read_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.extraction.window import FloatArray, Window
    from consumer.serving.bundle import Bundle


class GraphContract(NamedTuple):
    """What the exported graph and this worker must agree on, from the worker's bundle."""

    contract: int
    """Hash of tokenizer, limits and K (``consumer.extraction.contract``)."""
    cells_per_window: int
    pad: int
    """Token ids, this one and those below."""
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
            f"the model was exported with contract {other}, model.bundle has {graph.contract}: its tokenizer, limits "
            "or cell count differ; point model.bundle at the bundle folder beside the served version, or serve the "
            "version that belongs to this bundle",
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
    if (count < 0).any():
        raise bad_answer(f"output 'count' holds {int(count.min())}")
    cell_rows, cell_columns = cells >> 16, cells & 0xFFFF
    lengths = np.array([[window.length] for window in windows], np.int32)
    inside = (cell_rows >= 0) & (cell_rows < lengths) & (cell_columns < lengths)
    used = np.arange(limit) < count[:, None]
    if (used & ~inside).any():
        raise bad_answer("output 'cells' names a cell outside its window")
    found = np.minimum(count, limit).tolist()
    return (
        [Cells(cell_rows[i, :n], cell_columns[i, :n], scores[i, :n]) for i, n in enumerate(found)],
        np.flatnonzero(count > limit).tolist(),
    )


def dense_cells(outputs: Mapping[str, Any], window: Window, padded_length: int, graph: GraphContract) -> Cells:
    """Cells of the one window that the dense signature was asked about. Raises ServingError as ``compact_cells``."""
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
