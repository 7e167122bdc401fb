"""Windows that may have ended the model server under another version, which the same process serves.

A window is given up after ``resilience.crash_evidence.CRASHES`` crashes, and the server pays for each. With a canary it
meets two versions on one server, so what it did under one is not forgotten under the other: there it is isolated at
once, with the crashes that it has; one that was given up has all of them but the last. If this version answers it, it
was the other's fault. Loaded only where that happens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumer.resilience.crash_evidence import CRASHES, SUSPECTED_AFTER, CrashEvidence
from consumer.serving.dispatch.batch import Group

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable, Mapping, Sequence

    from consumer.batching.pinned import Pinned
    from consumer.extraction.window import Window
    from consumer.serving.dispatch.batch import Entry
    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.serving.refused import WindowAnswer, WindowRefused


class Suspect(NamedTuple):
    """A window, and what speaks against it."""

    window: Window
    level: int
    crash: CrashEvidence
    address: str
    """Of the server that it may have ended."""

    def is_like(self, window: Window, level: int, *, same_bundle: bool) -> bool:
        """Whether ``window`` of that level is this one. Windows of two bundles cannot be compared: any of the level."""
        return level == self.level and (
            not same_bundle
            or (
                np.array_equal(window.input_ids, self.window.input_ids)
                and np.array_equal(window.position_ids, self.window.position_ids)
                and np.array_equal(window.segment, self.window.segment)
            )
        )


def given_up(refused: WindowRefused) -> list[Suspect]:
    """The window that was given up since the server ended in its calls; else none."""
    if refused.window is None or not refused.ended_servers:
        return []
    crash = CrashEvidence(crashes=CRASHES - 1, alone=CRASHES, broken=CRASHES, proven=True, given_up=True)
    return [Suspect(refused.window, refused.level, crash, refused.address)]


def isolated(dispatcher: Dispatcher) -> dict[Hashable, list[Suspect]]:
    """The windows that are isolated at this moment, or are about to be, by the events that they come from."""
    found: dict[Hashable, list[Suspect]] = {}
    for server in dispatcher.servers:
        for group in {*server.suspects(), *server.calls.in_flight}:
            if not group.isolated and group.crash.broken < SUSPECTED_AFTER:  # most calls that break off do so by chance
                continue
            alone, crash = len(group.entries) == 1, group.crash
            for entry in group.entries:
                its = CrashEvidence(
                    crashes=crash.crashes if alone else 0,
                    alone=crash.alone if alone else 0,
                    proven=crash.proven and alone,
                    broken=crash.broken,
                    longest=crash.longest,
                    given_up=crash.given_up,
                )
                suspect = Suspect(entry.window, entry.level, its, server.address)
                found.setdefault(entry.origin, []).append(suspect)
    return found


class SuspectedWindows:
    """Takes the place of a dispatcher for one text that has suspects."""

    def __init__(self, dispatcher: Dispatcher, suspects: Sequence[Suspect], *, same_bundle: bool) -> None:
        """``same_bundle``: whether the suspects are windows of the bundle that is used here."""
        self._dispatcher, self._suspects, self._same_bundle = dispatcher, suspects, same_bundle

    @property
    def over_share(self) -> Mapping[str, int]:
        """As ``LengthQueue.over_share``."""
        return self._dispatcher.over_share

    @property
    def pinned(self) -> Pinned:
        """As ``Dispatcher.pinned``."""
        return self._dispatcher.pinned

    def submit(self, window: Window, deadline: float, level: int, *args: Any) -> asyncio.Future[WindowAnswer]:
        """As ``Dispatcher.submit``."""
        for suspect in self._suspects:
            if suspect.is_like(window, level, same_bundle=self._same_bundle):

                def isolate(entry: Entry, suspect: Suspect = suspect) -> tuple[Entry, ...]:
                    self._isolate(entry, suspect)
                    return ()

                return self._dispatcher.submit(window, deadline, level, *args, apart=isolate)
        return self._dispatcher.submit(window, deadline, level, *args)

    def _isolate(self, entry: Entry, suspect: Suspect) -> None:
        """Hand it to the endpoint of the server that it may have ended; where that is gone, to another one."""
        to = min(
            self._dispatcher.servers,
            key=lambda each: (each.address != suspect.address, each.gone, not each.usable, each.isolation.waiting),
        )
        now, uptime, known = to.calls.clock(), to.calls.uptime, suspect.crash
        if not uptime.watched:  # so its counts are old: the server went away since, in the other version's calls
            uptime.failed(now, isolated=True)
            if to.recovery.check_at is None:
                to.recovery.check_at = now  # or an idle worker would not see for a minute that it is back
        crash = replace(known)  # a text may have it twice
        group = Group([entry], crash=crash, first_failed_at=now, broke_at=frozenset({to.address}), broke_off_at=now)
        to.isolation.add(group, 0.0)
