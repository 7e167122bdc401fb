"""A SavedModel in a TensorFlow session: what TensorFlow Serving itself runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from consumer.config.git_lfs import lfs_pointer_at
from consumer.local.catalog import Refusal
from consumer.local.predict import predict
from consumer.serving.descriptors import PredictionLog, SignatureDef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

tf.get_logger().setLevel("ERROR")  # its deprecation notes are about the very interface that the real server uses


class SavedModel:
    """Implements ``consumer.local.catalog.Model``. Thread-safe; calls run side by side."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load it and run its warm-up records. ``threads`` counts for the process: the first model decides.

        Raises Refusal with the reason for a folder that cannot be served.
        """
        options = config_pb2.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
        options.gpu_options.allow_growth = True  # two versions share the device while they are swapped
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        self._callable = functools.cache(self._make_callable)
        try:
            self.signatures: Mapping[str, Any] = self._load(folder)
            for record in _warmup_records(folder):
                predict(self, 0, record)
        except Exception as error:
            self._session.close()
            if isinstance(error, Refusal):
                raise
            if pointer := lfs_pointer_at(sorted(path for path in folder.rglob("*") if path.is_file())):
                raise Refusal(grpc.StatusCode.DATA_LOSS, pointer) from error
            # TensorFlow reports a broken folder with OpError, OSError, ValueError, RuntimeError and others.
            raise _refusal(error, f"cannot load {folder.name}") from error

    def _load(self, folder: Path) -> dict[str, Any]:
        with self._session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], str(folder))
        # TensorFlow's own message classes and ours are different classes of the same messages.
        return {
            key: SignatureDef.FromString(signature.SerializeToString())
            for key, signature in meta_graph.signature_def.items()
        }

    def run(self, feeds: Mapping[str, NDArray[Any]], fetches: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Feed tensors by name, fetch tensors by name. Raises Refusal with the status of the operation that failed."""
        names = tuple(sorted(feeds))
        try:
            call = self._callable(names, tuple(fetches))
            return dict(zip(fetches, call(*(feeds[name] for name in names)), strict=True))
        except tf.errors.OpError as error:
            raise _refusal(error, "") from error

    def close(self) -> None:
        """Free the session. Nothing runs it any more."""
        self._callable.cache_clear()
        self._session.close()

    def _make_callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Callable[..., list[NDArray[Any]]]:
        # Session.run costs 0.4 ms a call more, and refuses shapes that the signature does not name, which the real
        # server does not.
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        made: Callable[..., list[NDArray[Any]]] = self._session._make_callable_from_options(options)
        return made


def _warmup_records(folder: Path) -> Iterator[Any]:
    """The PredictRequests of a version's warm-up file, if it has one. Raises Refusal for records of another kind."""
    file = folder / WARMUP_FILE
    if not file.exists():
        return
    _check_frames(file)
    for count, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(file)), start=1):
        if count > MAX_WARMUP_RECORDS:
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {WARMUP_FILE}",
            )
        entry = PredictionLog.FromString(record)
        if entry.WhichOneof("log_type") != "predict_log":
            raise Refusal(
                grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {entry.WhichOneof('log_type')}"
            )
        yield entry.predict_log.request


def _check_frames(file: Path) -> None:
    """Raise Refusal for a record that claims more bytes than the file has: TensorFlow would ask for them first."""
    left = file.stat().st_size
    with file.open("rb") as records:
        # A length of 8 bytes and its checksum, that many bytes, and theirs.
        while header := records.read(12):
            length = int.from_bytes(header[:8], "little")
            left -= 12 + length + 4
            if left < 0:
                raise Refusal(grpc.StatusCode.DATA_LOSS, f"truncated record in {WARMUP_FILE}")
            records.seek(length + 4, 1)


def _refusal(error: Exception, what: str) -> Refusal:
    if isinstance(error, tf.errors.OpError):
        # TensorFlow's error numbers are gRPC's.
        return Refusal(_BY_NUMBER.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
    code = grpc.StatusCode.NOT_FOUND if isinstance(error, OSError) else grpc.StatusCode.UNKNOWN
    return Refusal(code, f"{what}: {type(error).__name__}: {error}")
