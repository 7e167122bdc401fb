"""What every peer is given: the project's engine, one way to call the model, and batches.

A peer brings what it is there for: consuming, concurrency, producing, commits. Its pipeline consumes, collects 64
records or what came in 50 ms, has their windows answered in the order of arrival (``plain``), each call padded to its
longest window. The ``sorted`` variant is what the bare loop does: 256 records, windows in order of length, calls of at
most 16,384 padded tokens. Both have two calls of a batch in flight.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from consumer.batching.queue import padded_length
from consumer.config.task_files import load_tasks
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits
from consumer.serving.bundle import load_bundle
from consumer.serving.descriptors import PREDICT
from consumer.serving.tensors import GraphContract, compact_cells, pad, write_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.extraction.window import Cells, Window

TOKENS = 16_384
CALLS = 2
CALL_SECONDS = 120.0
BYTES = 64 << 20
LINGER_SECONDS = 0.05
SESSION_MS = 6000
"""The same for all, so that none waits longer than another for the partitions of a member that was killed."""


class Settings(NamedTuple):
    """The command line of every pipeline."""

    bootstrap: str
    group: str
    source: str
    output: str
    target: str
    bundle: str
    task: str
    order: str
    """plain or sorted."""

    @property
    def records(self) -> int:
        """Records of a batch."""
        return 256 if self.order == "sorted" else 64

    @classmethod
    def given(cls) -> Settings:
        """From the command line."""
        return cls(*sys.argv[1:])


class Extractor:
    """Values of events to values of results, level after level. Each thread that calls it gets an engine of its own."""

    def __init__(self, settings: Settings) -> None:
        self._bundle = load_bundle(Path(settings.bundle))
        self._contract = GraphContract.of(self._bundle)
        self._task = load_tasks(())[settings.task]
        self._order = settings.order
        self._rows = settings.records
        self._own = threading.local()
        options = (("grpc.max_receive_message_length", BYTES), ("grpc.max_send_message_length", BYTES))
        self._predict = grpc.insecure_channel(settings.target, options).unary_unary(PREDICT.path)

    def extract(self, values: Sequence[bytes]) -> list[bytes]:
        """One result for each event, in order, as JSON. Raises what the engine, JSON or the call raises."""
        results = self.results([json.loads(value) for value in values])
        return [json.dumps(result, ensure_ascii=False).encode() for result in results]

    def results(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same for a peer that reads and writes JSON itself."""
        engine = self._engine()
        extractions = [engine.start(event["text"], self._task) for event in events]
        started = extractions
        while started := [extraction for extraction in started if not extraction.finished]:
            cells = self._answers([window for extraction in started for window in extraction.windows])
            for extraction in started:
                count = len(extraction.windows)
                extraction.advance(cells[:count])
                del cells[:count]
        results = []
        for event, extraction in zip(events, extractions, strict=True):
            found = [[asdict(fact) for fact in path] for path in extraction.result().paths]
            results.append({"event_id": event["event_id"], "task": self._task.name, "extractions": found})
        return results

    def _engine(self) -> Engine:
        if not hasattr(self._own, "engine"):
            self._own.engine = Engine(self._bundle.tokenizer, self._bundle.limits, ExtractionLimits())
        engine: Engine = self._own.engine
        return engine

    def _answers(self, windows: Sequence[Window]) -> list[Cells]:
        answers: dict[int, Cells] = {}
        flying: deque[tuple[list[int], Any]] = deque()

        def land() -> None:
            numbers, call = flying.popleft()
            outputs = PREDICT.response.FromString(call.result()).outputs
            cells, _ = compact_cells(outputs, [windows[number] for number in numbers], self._contract)
            answers.update(zip(numbers, cells, strict=True))

        for numbers in self._calls(windows):
            if len(flying) == CALLS:
                land()
            request = self._request([windows[number] for number in numbers])
            flying.append((numbers, self._predict.future(request, timeout=CALL_SECONDS)))
        while flying:
            land()
        return [answers[number] for number in range(len(windows))]

    def _calls(self, windows: Sequence[Window]) -> Iterator[list[int]]:
        order = list(range(len(windows)))
        if self._order == "sorted":
            order.sort(key=lambda number: windows[number].length)
        call: list[int] = []
        longest = 0
        for number in order:
            longest = max(longest, padded_length(windows[number].length))
            if call and (len(call) == self._rows or (len(call) + 1) * longest > TOKENS):
                yield call
                call, longest = [], padded_length(windows[number].length)
            call.append(number)
        if call:
            yield call

    def _request(self, windows: Sequence[Window]) -> bytes:
        request = PREDICT.request()
        request.model_spec.name = "instant"
        request.model_spec.signature_name = "serving_default"
        longest = max(window.length for window in windows)
        for name, array in pad(windows, padded_length(longest), self._contract.pad).items():
            write_content(request.inputs[name], array)
        return bytes(request.SerializeToString())


class Batches:
    """For peers that hand over one record at a time: waits for a full batch or 50 ms, on the loop that calls it."""

    def __init__(self, records: int, extract: Callable[[list[Any]], list[Any]]) -> None:
        """``extract``: a batch of at most ``records`` events to their results; called on threads."""
        self._records, self._extract = records, extract
        self._threads = ThreadPoolExecutor(CALLS)
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def extract(self, value: Any) -> Any:
        """The result of one event, of a batch with those that came at the same time."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((value, answer))
        if len(self._waiting) == self._records:
            self._send()
        elif self._timer is None:
            self._timer = loop.call_later(LINGER_SECONDS, self._send)
        return await answer

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._answer(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        values = [value for value, _ in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._extract, values)
        except Exception as error:  # each record's worker gets it
            for _, answer in batch:
                answer.set_exception(error)
            return
        for (_, answer), result in zip(batch, results, strict=True):
            answer.set_result(result)
