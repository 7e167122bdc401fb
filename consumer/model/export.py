"""Turns a checkpoint into a version folder that TensorFlow Serving loads, with the client's bundle beside the graph.

A version also holds warm-up requests, which the server runs before it calls the version AVAILABLE: one of every shape
that production may send. So the first real call of a shape is as fast as the second, and a batch that does not fit into
memory fails at load, when the old version still serves. What is written is described in docs/model.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from consumer import __version__
from consumer.batching.queue import PADDED_LENGTHS
from consumer.extraction.window import Window
from consumer.model.checkpoint import load_checkpoint
from consumer.model.graph import DENSE, SERVING, RexUniNLU
from consumer.model.self_check import SelfCheck, sample_windows, self_check
from consumer.model.tokenizer import read_bundle
from consumer.serving.bundle import BUNDLE_FILE, FORMAT, TOKENIZER_FILE
from consumer.serving.descriptors import PredictionLog
from consumer.serving.tensors import GraphContract, pad, write_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.model.encoder import Precision


WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks, relative to the version: TFRecord of PredictionLog, at most 1000 of them."""


_SIZES = ("layers", "heads", "hidden_size", "intermediate_size", "vocab_size")
"""Fields of the encoder's configuration that bundle.json records."""


class ExportError(Exception):
    """The output cannot be written where it was asked for."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written. ``files`` are (path relative to ``folder``, bytes)."""

    folder: Path
    version: int
    files: tuple[tuple[str, int], ...]
    signatures: tuple[str, ...]
    parameters: int
    precision: Precision
    contract: int
    checkpoint_sha256: str
    warmup_requests: int
    self_check: SelfCheck
    seconds: float


def export(
    checkpoint_folder: Path,
    output: Path,
    *,
    version: int | None = None,
    precision: Precision = "float32",
    max_tokens: int = 16_384,
    announce: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write ``output/<version>/``; by default the highest version that exists, plus 1.

    ``max_tokens`` sizes the largest batch of the warm-up. All is written to a hidden folder beside it and renamed after
    the self-check, so a server that polls ``output`` never sees half a version. Raises CheckpointError for a bad
    checkpoint, ExportError for a taken version, SelfCheckError for a model that computes something else; nothing is
    left behind then. ``announce`` is called with a line for each step.
    """
    started = time.monotonic()
    announce("reading the checkpoint")
    checkpoint = load_checkpoint(checkpoint_folder)
    bundle = read_bundle(checkpoint_folder, checkpoint.config)
    agreed = GraphContract.of(bundle)
    windows = sample_windows(bundle)
    parameters = sum(weight.size for weight in checkpoint.weights.values())
    stamp = {
        "contract": bundle.contract,
        "limits": asdict(bundle.limits),
        "cells_per_window": bundle.cells_per_window,
        "tokenizer_sha256": hashlib.sha256(bundle.tokenizer.json).hexdigest(),
        "checkpoint_sha256": checkpoint.sha256,
        "precision": precision,
        "model": {
            **{name: getattr(checkpoint.config, name) for name in _SIZES},
            "relative_span": checkpoint.config.span,
            "parameters": parameters,
        },
        "rexstream": __version__,
    }
    with _version_folder(output, version) as (draft, number):
        announce("writing the graph")
        module = RexUniNLU(checkpoint, agreed, precision)
        _save(module, draft, stamp)
        (draft / "bundle").mkdir()
        (draft / "bundle" / TOKENIZER_FILE).write_bytes(bundle.tokenizer.json)
        (draft / "bundle" / BUNDLE_FILE).write_text(json.dumps({"format": FORMAT, **stamp}, indent=2) + "\n")
        requests = write_warmup(draft / WARMUP_FILE, output.name, windows, max_tokens, agreed.pad)
        announce("checking the written model")
        found = self_check(draft, checkpoint, windows, agreed=agreed, precision=precision)
    folder = output / str(number)
    return ExportReport(
        folder=folder,
        version=number,
        files=tuple(sorted((str(p.relative_to(folder)), p.stat().st_size) for p in folder.rglob("*") if p.is_file())),
        signatures=(SERVING, DENSE),
        parameters=parameters,
        precision=precision,
        contract=bundle.contract,
        checkpoint_sha256=checkpoint.sha256,
        warmup_requests=requests,
        self_check=found,
        seconds=time.monotonic() - started,
    )


def warmup_shapes(max_tokens: int) -> list[tuple[str, int, int]]:
    """``(signature, B, L)``: each padded length alone, the largest batch of the longest, and one dense call."""
    longest = PADDED_LENGTHS[-1]
    alone = [(SERVING, 1, length) for length in PADDED_LENGTHS]
    return [*alone, (SERVING, max_tokens // longest, longest), (DENSE, 1, longest)]


def write_warmup(path: Path, model_name: str, windows: Sequence[Window], max_tokens: int, pad_id: int) -> int:
    """Write the file; rows repeat the sample windows where they fit. Returns the number of requests."""
    path.parent.mkdir(parents=True)
    shapes = warmup_shapes(max_tokens)
    shortest = min(windows, key=lambda window: window.length)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, rows, length in shapes:
            # Where none fits, the head of one: only that its ids and positions are real matters here.
            fitting = [window for window in windows if window.length <= length] or [
                Window(
                    shortest.input_ids[:length],
                    shortest.position_ids[:length],
                    shortest.segment[:length],
                    min(shortest.text_start, length),
                )
            ]
            batch = [fitting[row % len(fitting)] for row in range(rows)]
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = model_name, signature
            for name, array in pad(batch, length, pad_id).items():
                write_content(request.inputs[name], array)
            writer.write(log.SerializeToString())
    return len(shapes)


def next_version(output: Path) -> int:
    """One more than the highest version in ``output``, 1 when there is none. ``007`` counts as 7, as on the server."""
    names = [path.name for path in output.iterdir() if path.is_dir()] if output.is_dir() else []
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0) + 1


def _save(module: RexUniNLU, folder: Path, stamp: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rexstream.json"
        file.write_text(json.dumps(stamp, indent=2) + "\n")
        saved = tf.Module()
        # Only what the signatures use: saving the module itself would store both functions a second time.
        saved.encoder = module.encoder
        # An asset travels with the SavedModel even where the bundle is not copied along.
        saved.stamp = tf.saved_model.Asset(str(file))
        signatures = {
            SERVING: module.serving_default.get_concrete_function(),
            DENSE: module.dense.get_concrete_function(),
        }
        tf.saved_model.save(
            saved, str(folder), signatures, tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        )


@contextmanager
def _version_folder(output: Path, version: int | None) -> Iterator[tuple[Path, int]]:
    """A hidden draft folder: becomes ``output/<version>`` when the block ends well, and vanishes when it does not."""
    if output.exists() and not output.is_dir():
        raise ExportError(f"{output} is a file; --output takes the model's folder, which holds its versions")
    number = next_version(output) if version is None else version
    target = output / str(number)
    if target.exists():
        raise ExportError(f"{target} exists; servers do not reload a version that they know: leave --version out")
    created = [path for path in (output, *output.parents) if not path.exists()]
    draft = output / f".exporting-{number}-{os.getpid()}"
    try:
        draft.mkdir(parents=True)
        yield draft, number
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):  # somebody else has put something there
            for path in created:
                path.rmdir()
        raise
