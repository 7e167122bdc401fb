"""The price to beat: what an engineer writes in a day on the same engine, without any of the worker's guarantees.

    loop.py BOOTSTRAP GROUP INPUT OUTPUT TARGET BUNDLE TASK,TASK

Polls 256 records, sorts the windows of all by length, sends batches of at most 16,384 padded tokens with two calls in
flight, goes on level after level, produces, flushes, commits. An unreadable record or a failed call ends it.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from confluent_kafka import Consumer, Producer

from consumer.batching.queue import padded_length
from consumer.config.task_files import load_tasks
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits
from consumer.serving.bundle import load_bundle
from consumer.serving.descriptors import PREDICT
from consumer.serving.tensors import GraphContract, compact_cells, pad, write_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Cells, Window

RECORDS = 256
TOKENS = 16_384
CALLS = 2
BYTES = 64 << 20


class Model:
    """Two calls in flight, answers in the order of the windows."""

    def __init__(self, target: str, contract: GraphContract) -> None:
        options = (("grpc.max_receive_message_length", BYTES), ("grpc.max_send_message_length", BYTES))
        self._predict = grpc.insecure_channel(target, options).unary_unary(PREDICT.path)
        self._contract = contract

    def answer(self, windows: Sequence[Window]) -> list[Cells]:
        """Cells of each window."""
        answers: dict[int, Cells] = {}
        flying: deque[tuple[list[int], Any]] = deque()

        def land() -> None:
            numbers, call = flying.popleft()
            outputs = PREDICT.response.FromString(call.result()).outputs
            cells, _ = compact_cells(outputs, [windows[number] for number in numbers], self._contract)
            answers.update(zip(numbers, cells, strict=True))

        for numbers in self._batches(windows):
            if len(flying) == CALLS:
                land()
            flying.append((numbers, self._predict.future(self._request([windows[n] for n in numbers]), timeout=120)))
        while flying:
            land()
        return [answers[number] for number in range(len(windows))]

    @staticmethod
    def _batches(windows: Sequence[Window]) -> list[list[int]]:
        batches: list[list[int]] = [[]]
        for number in sorted(range(len(windows)), key=lambda n: windows[n].length):
            if batches[-1] and (len(batches[-1]) + 1) * padded_length(windows[number].length) > TOKENS:
                batches.append([])
            batches[-1].append(number)
        return batches

    def _request(self, windows: Sequence[Window]) -> bytes:
        request = PREDICT.request()
        request.model_spec.name = "instant"
        request.model_spec.signature_name = "serving_default"
        for name, array in pad(windows, padded_length(windows[-1].length), self._contract.pad).items():
            write_content(request.inputs[name], array)
        return bytes(request.SerializeToString())


def main() -> None:
    """Until killed."""
    bootstrap, group, source, target, address, folder, names = sys.argv[1:8]
    bundle = load_bundle(Path(folder))
    engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
    model = Model(address, GraphContract.of(bundle))
    shipped = load_tasks(())
    tasks = [shipped[name] for name in names.split(",")]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
        }
    )
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    consumer.subscribe([source])
    while True:
        messages = [message for message in consumer.consume(RECORDS, 0.05) if message.error() is None]
        started = []
        for message in messages:
            event = json.loads(message.value() or b"")
            started += [(message, event, task, engine.start(event["text"], task)) for task in tasks]
        open_ones = [extraction for *_, extraction in started]
        while open_ones := [extraction for extraction in open_ones if not extraction.finished]:
            cells = model.answer([window for extraction in open_ones for window in extraction.windows])
            for extraction in open_ones:
                count = len(extraction.windows)
                extraction.advance(cells[:count])
                del cells[:count]
        for message, event, task, extraction in started:
            found = [[asdict(fact) for fact in path] for path in extraction.result().paths]
            result = {"event_id": event["event_id"], "task": task.name, "extractions": found}
            producer.produce(target, json.dumps(result, ensure_ascii=False).encode(), message.key())
        if messages:
            producer.flush()
            consumer.commit(asynchronous=True)


if __name__ == "__main__":
    main()
