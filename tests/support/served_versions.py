"""TensorFlow Serving over folders of stub models: versions come, go, get labels and are refused as they are there.

``rexstream serve`` has the lists of models, policies, labels, states and texts; this is that server without TensorFlow,
and less kind: calls beyond its threads are refused, a version takes time to load, a window of another vocabulary is
refused (or not, as on a GPU), and calls of a version that is unloaded may break off.
"""

from __future__ import annotations

import functools
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import numpy as np
from google.protobuf import json_format
from held_ports import HeldPorts
from stub_model import TOKENIZER_JSON, stub_cells

from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW, PromptLimits, PromptTokenizer, contract_hash
from consumer.extraction.window import Window
from consumer.local.catalog import Catalog, Refusal
from consumer.local.model_folders import ModelSource, VersionPolicy
from consumer.local.model_server import ModelServer
from consumer.serving.descriptors import HANDLE_RELOAD_CONFIG, SignatureDef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

NAME = "stub"
_INPUTS = ("input_ids", "segment", "position_ids", "length", "text_start")
_INT32, _FLOAT = 3, 1
_OUTPUTS = {"cells": _INT32, "scores": _FLOAT, "count": _INT32, "contract": _INT32}


@functools.cache
def _tokenizer(tokenizer_json: bytes) -> tuple[PromptTokenizer, int, int]:
    """The tokenizer, its number of entries, and the contract of a version with it."""
    from tokenizers import Tokenizer

    entries = Tokenizer.from_buffer(tokenizer_json).get_vocab_size()
    return PromptTokenizer(tokenizer_json), entries, contract_hash(tokenizer_json, PromptLimits())


def _signature(outputs: Mapping[str, int]) -> Any:
    signature = SignatureDef()
    for alias in _INPUTS:
        signature.inputs[alias].name, signature.inputs[alias].dtype = alias, _INT32
    for alias, dtype in outputs.items():
        signature.outputs[alias].name, signature.outputs[alias].dtype = alias, dtype
    return signature


class StubVersion:
    """Implements ``consumer.local.catalog.Model`` with ``stub_cells``."""

    signatures: ClassVar[Mapping[str, Any]] = {
        "serving_default": _signature(_OUTPUTS),
        "dense": _signature({"logits": _FLOAT, "contract": _INT32}),
    }

    def __init__(self, server: ServedVersions, number: int, tokenizer_json: bytes) -> None:
        self._server, self._number = server, number
        self._tokenizer, self._entries, self._contract = _tokenizer(tokenizer_json)

    def run(self, feeds: Mapping[str, NDArray[Any]], fetches: Sequence[str]) -> dict[str, NDArray[Any]]:
        """One batch."""
        server = self._server
        time.sleep(server.seconds.get(self._number, 0.0))
        if server.breaks_off and not server.is_available(self._number):
            raise Refusal(grpc.StatusCode.CANCELLED, "Session has been closed.")
        if (refusal := server.refuses(self._number, feeds)) is not None:
            raise refusal
        ids, segment, positions = (feeds[name] for name in _INPUTS[:3])
        beyond = np.argwhere(ids >= self._entries)
        if len(beyond) and server.checks_indices:
            row, column = beyond[0]
            what = f"indices[{row},{column}] = {ids[row, column]} is not in [0, {self._entries})"
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{what}\n\t [[{{{{node words}}}}]]")
        rows, length = ids.shape
        found = []
        for row in range(rows):
            n = int(feeds["length"][row, 0])
            window = Window(ids[row, :n], positions[row, :n], segment[row, :n], int(feeds["text_start"][row, 0]))
            found.append(stub_cells(window, self._number, self._tokenizer))
        outputs: dict[str, NDArray[Any]] = {"contract": np.full((rows, 1), self._contract, np.int32)}
        if "logits" in fetches:
            outputs["logits"] = logits = np.full((rows, length, length), -1, np.float32)
            for row, its in enumerate(found):
                logits[row, its.rows, its.columns] = its.logits
            return outputs
        cells = outputs["cells"] = np.zeros((rows, MAX_CELLS_PER_WINDOW), np.int32)
        scores = outputs["scores"] = np.zeros((rows, MAX_CELLS_PER_WINDOW), np.float32)
        outputs["count"] = np.array([[len(its.rows)] for its in found], np.int32)
        for row, its in enumerate(found):
            n = min(len(its.rows), MAX_CELLS_PER_WINDOW)
            cells[row, :n] = (its.rows << 16 | its.columns)[:n]
            scores[row, :n] = its.logits[:n]
        return outputs

    def close(self) -> None:
        """Nothing to free."""


class _Catalog(Catalog):
    """``allows_unused``: as with --allow_version_labels_for_unavailable_models, a label that named no other version
    before may name one that is not there.
    """

    allows_unused = False

    def replace(
        self,
        sources: Sequence[ModelSource],
        labels: Mapping[str, Mapping[str, int]],
        waited_for: Callable[[], bool] = lambda: True,
    ) -> None:
        asked, before = dict(labels.get(NAME, {})), self._labels.get(NAME, {})
        there = self._available(NAME)
        unused = {k: n for k, n in asked.items() if self.allows_unused and n not in there and before.get(k, n) == n}
        super().replace(sources, {NAME: {k: n for k, n in asked.items() if k not in unused}}, waited_for)
        self._labels = {NAME: asked}


class _Server(ModelServer):
    """Refuses what comes while all its threads are busy."""

    def __init__(self, catalog: Catalog, threads: int, *, tensor_content: bool) -> None:
        super().__init__(catalog, cpus=16, tensor_content=tensor_content)
        self._free = threading.Semaphore(threads)

    @contextmanager
    def _thread(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        try:
            yield
        finally:
            self._free.release()

    def _predict(self, request: Any, context: Any) -> Any:
        with self._thread():
            return super()._predict(request, context)

    def _status(self, request: Any, context: Any) -> Any:
        with self._thread():
            return super()._status(request, context)


class ServedVersions:
    """Starts with the versions in ``tokenizers`` (number to ``tokenizer.json``) loaded; ``stop`` and ``start`` again
    keep the port. Version n finds what ``stub_cells`` finds for it.
    """

    def __init__(
        self,
        folder: Path,
        tokenizers: Mapping[int, bytes],
        labels: Mapping[str, int] | None = None,
        *,
        latest: int | None = None,
        threads: int = 32,
        tensor_content: bool = False,
        allows_unused: bool = False,
    ) -> None:
        """``latest``: so many stay loaded, else all. ``tensor_content``: answers as r2.19 can."""
        self.folder, self.labels = folder, dict(labels or {})
        self.policy: dict[str, Any] = {"all": {}} if latest is None else {"latest": {"num_versions": latest}}
        self.seconds: dict[int, float] = {}
        """How long a call of a version takes."""
        self.load_seconds = 0.0
        self.breaks_off = False
        """Whether calls of a version break off that is unloaded meanwhile."""
        self.checks_indices = True
        """As a CPU does; a GPU reads zeros where an index is beyond the table."""
        self.refuses: Callable[[int, Mapping[str, NDArray[Any]]], Refusal | None] = lambda *_: None
        self._threads, self._tensor_content, self._allows_unused = threads, tensor_content, allows_unused
        self._held = HeldPorts()
        for number, tokenizer_json in tokenizers.items():
            self.write(number, tokenizer_json)
        self.start()

    def write(self, number: int, tokenizer_json: bytes = TOKENIZER_JSON) -> None:
        """A version appears in the folder, whole."""
        hidden = self.folder / f".{number}"
        hidden.mkdir(parents=True)
        (hidden / "tokenizer.json").write_bytes(tokenizer_json)
        hidden.rename(self.folder / str(number))

    def take_away(self, number: int) -> None:
        """A version's folder vanishes."""
        (self.folder / str(number)).rename(self.folder / f".gone-{number}-{time.monotonic_ns()}")

    def start(self) -> None:
        """As the real server: the port opens once the models are loaded."""
        policy = VersionPolicy(latest=self.policy["latest"]["num_versions"] if "latest" in self.policy else None)
        if "specific" in self.policy:
            policy = VersionPolicy(specific=frozenset(self.policy["specific"]["versions"]))
        self._catalog = catalog = _Catalog([ModelSource(NAME, self.folder, policy)], self._load)
        catalog.allows_unused = self._allows_unused
        catalog._labels = {NAME: dict(self.labels)}
        self._server = _Server(catalog, self._threads, tensor_content=self._tensor_content)
        self.target = self._server.start("127.0.0.1", self._held.ports[0], 0.05)

    def stop(self) -> None:
        """As SIGTERM: at once."""
        self._server.stop()

    def configure(self, labels: Mapping[str, int] | None = None, **policy: Any) -> str:
        """A new list of models by HandleReloadConfigRequest; why it was refused, or nothing."""
        request = HANDLE_RELOAD_CONFIG.request()
        config = request.config.model_config_list.config.add(
            name=NAME, base_path=str(self.folder), model_platform="tensorflow"
        )
        its_policy = policy or self.policy
        json_format.ParseDict(its_policy, config.model_version_policy)
        its_labels = self.labels if labels is None else dict(labels)
        for label, number in its_labels.items():
            config.version_labels[label] = number
        with grpc.insecure_channel(self.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
            method = HANDLE_RELOAD_CONFIG
            call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
            try:
                call(request, timeout=30)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
        self.labels, self.policy = its_labels, its_policy
        return ""

    def is_available(self, number: int) -> bool:
        """Whether calls of this version are answered."""
        return number in self._catalog.available().get(NAME, [])

    def _load(self, folder: Path) -> StubVersion:
        time.sleep(self.load_seconds)
        return StubVersion(self, int(folder.name), (folder / "tokenizer.json").read_bytes())
