"""From collapsed stacks, as py-spy writes them, to the share that each part of the worker has of the samples."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PARTS: Final = {
    "batching": (
        "consumer/batching/",
        "consumer/resilience/",
        "consumer/serving/dispatch",
        "consumer/serving/calls.py",
    ),
    "serving (tensors, client)": ("consumer/serving/",),
    "codecs": ("consumer/codecs/",),
    "extraction": ("consumer/extraction/", "consumer/extracting.py"),
    "delivery": ("consumer/delivery/",),
    "Kafka client": ("consumer/kafka/", "confluent_kafka/"),
    "telemetry": ("consumer/telemetry/", "consumer/observing.py", "prometheus_client/", "structlog/", "logging/"),
    "worker": ("consumer/",),
    "JSON": ("json/", "orjson/"),
    "tokenizers": ("tokenizers/",),
    "gRPC": ("grpc/",),
    "asyncio": ("asyncio/", "selectors.py"),
}
"""Part -> what the path of its files begins with, of today's code and of the landed revision; the first that fits."""

OTHER: Final = "other"
LIBRDKAFKA: Final = "librdkafka's threads"
REST: Final = "gRPC's threads, and others without Python"

_FRAME: Final = re.compile(r".* \((.*?)(?::\d+)?\)")
"""``function (file:line)``."""
_SAMPLE: Final = re.compile(r"thread \((\d+)\):[^;]*;?(.*) (\d+)")


def part_of(stack: str) -> str:
    """The part of the innermost frame that belongs to any; what numpy or the standard library do is their caller's."""
    for frame in reversed(stack.split(";")):
        found = _FRAME.fullmatch(frame)
        for part, prefixes in PARTS.items():
            if found is not None and found[1].startswith(prefixes):
                return part
    return OTHER


def shares(lines: Iterable[str]) -> dict[int, dict[str, float]]:
    """Of every thread, by the kernel's id: part -> share of the thread's samples.

    Lines are ``thread (ID): name;frame;frame count``, the outermost frame first. Raises ValueError without any.
    """
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for line in lines:
        if (sample := _SAMPLE.fullmatch(line)) is not None:
            found[int(sample[1])][part_of(sample[2])] += int(sample[3])
    if not found:
        raise ValueError("no sample was taken: the process did nothing, or ended")
    return {thread: {part: count / parts.total() for part, count in parts.items()} for thread, parts in found.items()}


def by_part(cpu: Mapping[int, tuple[str, float]], of_threads: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """CPU of each part, in the unit of ``cpu``: what each thread took, divided by its samples.

    ``cpu``: of every thread, by its id, the kernel's name for it and the figure. Those that run no Python have no
    samples: librdkafka's, which have its name, and others.
    """
    found: defaultdict[str, float] = defaultdict(float)
    for thread, (name, value) in cpu.items():
        rest = LIBRDKAFKA if name.startswith("rdk") else REST
        for part, share in of_threads.get(thread, {rest: 1.0}).items():
            found[part] += share * value
    return dict(found)
