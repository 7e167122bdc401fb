"""All targets, and running a stretch of one's inputs."""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fuzz_checkpoints
import fuzz_configuration
import fuzz_decoders
import fuzz_engine
import fuzz_headers
import fuzz_results
import fuzz_serving
from fuzzing import Target, input_of

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        fuzz_decoders,
        fuzz_headers,
        fuzz_engine,
        fuzz_serving,
        fuzz_results,
        fuzz_configuration,
        fuzz_checkpoints,
    )
    for target in module.TARGETS
}

SLOW_SECONDS = 1.0
"""Of CPU for one input: worth counting."""

LIMIT_SECONDS = 20.0
"""Of CPU for one input: a violation."""

MEMORY_BYTES = 8 * 2**30


class TooLong(BaseException):
    """Beside Exception, so that a decoder that takes every error for bad input cannot swallow it."""


@dataclass(slots=True)
class Tally:
    """What became of a target's inputs."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    longest: float = 0.0
    """Seconds of CPU of one input."""
    cpu: float = 0.0
    violations: list[tuple[int, str]] = field(default_factory=list)
    """Number of the input, what did not hold."""

    def add(self, other: Tally) -> None:
        """Take another stretch's numbers in."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.slow += other.slow
        self.longest = max(self.longest, other.longest)
        self.cpu += other.cpu
        self.violations += other.violations


def run_stretch(name: str, seed: int, first: int, last: int) -> Tally:
    """Feed the inputs ``first`` to ``last - 1`` of a target."""
    target, tally = TARGETS[name], Tally()
    begun = time.process_time()
    with _guarded():
        for index in range(first, last):
            body = input_of(target, seed, index)
            started = time.process_time()
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
                outcome = target.check(body)
            except (Exception, TooLong) as error:
                outcome = "VIOLATION"
                tally.violations.append((index, f"{type(error).__name__}: {str(error)[:300]}"))
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            took = time.process_time() - started
            tally.slow += took > SLOW_SECONDS
            tally.longest = max(tally.longest, took)
            tally.outcomes[outcome] += 1
            tally.inputs += 1
    tally.cpu = time.process_time() - begun
    return tally


@contextmanager
def _guarded() -> Iterator[None]:
    """An input that would take all memory or all time ends in a violation instead. For the main thread."""

    def over(*_: object) -> None:
        raise TooLong(f"more than {LIMIT_SECONDS:.0f} s of CPU")

    memory = resource.getrlimit(resource.RLIMIT_AS)
    allowed = MEMORY_BYTES if memory[1] == resource.RLIM_INFINITY else min(MEMORY_BYTES, memory[1])
    before = signal.signal(signal.SIGVTALRM, over)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, memory[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.signal(signal.SIGVTALRM, before)


def shares(inputs: int, names: list[str]) -> dict[str, int]:
    """How many inputs each target gets; at least one."""
    whole = sum(TARGETS[name].per_thousand for name in names)
    return {name: max(1, round(inputs * TARGETS[name].per_thousand / whole)) for name in names}
