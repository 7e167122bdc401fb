"""Windows of events that a model version has begun, while model servers serve several versions. Pure.

One result never mixes models: an event that another version answers begins again. While versions are mixed, as in a
rollout, an event is therefore kept at endpoints of its version as long as there is one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from consumer.batching.policy import Call, Decision
from consumer.batching.queue import LengthQueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from consumer.batching.policy import Batch, LeastTime, Load
    from consumer.batching.queue import Pending


class Pinned:
    """The windows that wait for endpoints of one version each; empty unless several versions are served."""

    def __init__(
        self, policy: LeastTime, lanes: Mapping[str, float] | None, over_share: dict[str, int] | None = None
    ) -> None:
        """``over_share``: of the common queue, whose large events wait in one line with those of any version."""
        self._policy = policy
        self._lanes, self._over_share = lanes, over_share
        self._queues: dict[str, LengthQueue] = {}
        self.size = 0
        """Windows that wait."""
        self.versions: frozenset[str] = frozenset()
        """Those that are served, if they are several: windows of events that one of them began belong here."""

    def add(self, pending: Pending) -> None:
        """Insert one window, whose version is among ``versions``."""
        self._queues.setdefault(pending.version, LengthQueue(self._lanes, self._over_share)).add(pending)
        self.size += 1

    def decide(
        self, now: float, common: LengthQueue, endpoints: Sequence[Load], served: Sequence[str | None]
    ) -> Decision:
        """As ``LeastTime.decide`` for the windows here and those that any endpoint may answer, in ``common``.

        ``served`` has the version of each endpoint, None for one that is out or has answered nothing. Who has the most
        urgent window goes first: begun events always would let none begin while a large one goes on. What waits for a
        version that is gone goes to ``common``: it will be answered, if by another one.
        """
        versions = frozenset(version for version in served if version)
        self.versions = versions if len(versions) > 1 else frozenset()
        for version in self._queues.keys() - self.versions:
            for pending in drained(self._queues.pop(version)):
                common.add(pending)
        if not self._queues:
            self.size = 0
            return self._policy.decide(now, common, endpoints)
        batches: list[Batch] = []
        times: list[float] = []
        for version, queue in sorted((*self._queues.items(), ("", common)), key=_urgency):
            loads = [
                load if version in ("", its) else load._replace(takes_windows=False)
                for load, its in zip(endpoints, served, strict=True)
            ]
            decision = self._policy.decide(now, queue, loads)
            batches += decision.batches
            if decision.wake_at is not None:
                times.append(decision.wake_at)
            calls = [list(load.calls) for load in endpoints]
            for batch in decision.batches:
                calls[batch.endpoint].append(Call(len(batch.windows), batch.padded_length, now))
            endpoints = [load._replace(calls=each) for load, each in zip(endpoints, calls, strict=True)]
        self.size = sum(map(len, self._queues.values()))
        return Decision(tuple(batches), min(times, default=None))


def _urgency(queue: tuple[str, LengthQueue]) -> tuple[float, int, int]:
    """Of its most urgent window, the lowest first; the last one of all where none waits."""
    urgent = queue[1].turn(math.inf)
    return (math.inf, 0, 0) if urgent is None else (urgent.deadline, -urgent.level, urgent.id)


def drained(queue: LengthQueue) -> Iterator[Pending]:
    """All of its windows, taken out."""
    while queue.turn(math.inf) is not None:
        for length, count in queue.counts():
            yield from queue.take(length, count)
