"""Tells a canary that does not answer from a model server that does not: by asking the stable version meanwhile.

Both are on the same servers, so a server that is away, or hangs, is no fault of the canary. What must be known is
whether the stable version answers a health probe at that address that began after the canary was found wanting.
Nothing is asked while the canary answers. Loaded only where there are several variants.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from consumer.resilience.canary import RETURN_SECONDS, hung_after
from consumer.serving.protocol import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.serving.dispatch.endpoint import Endpoint
    from consumer.worker.variant import Variant


ASIDE_SECONDS = 0.4
"""The stable version must have answered so long ago: a server that goes on after a pause answers both at once, and who
is first means nothing. A little less than the half second between two looks."""


class CanaryEvidence:
    """Belongs to the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is the dispatchers', in seconds."""
        self._clock = clock
        self._asked: dict[str, asyncio.Task[None]] = {}
        """Health probes of the stable version that are under way, by address."""
        self._answered: dict[str, tuple[float, float]] = {}
        """When the last one that was answered there began and ended."""
        self._waits_since: dict[Variant, float] = {}
        """Since when a variant has windows, none of which was answered."""
        self.hung = ""
        """Which call of the canary hangs, for people; empty while none does."""
        self.uncertain = False
        """Whether a call of it may hang, or may have failed by chance."""
        self.is_out = False
        """Whether no endpoint of it answers: an outage, and not a version that is not there or does not fit."""
        self.stable_answers = True
        """Whether the stable version has answered since then, if it is out."""

    def look(self, canaries: Sequence[Variant], stable: Variant, slower: float) -> None:
        """See how the ``canaries`` are, those of all bundles; ``slower`` is ``model.canary.slower``."""
        here = [server for each in canaries for server in each.dispatcher.servers if not server.gone]
        faults = [server.recovery.fault for server in here]
        # Of several bundles one that never fitted has a fault of its own.
        self.is_out = all(faults) and any(fault and fault.failure is Failure.TRANSIENT for fault in faults)
        answered, self.stable_answers = self.stable_answers, True
        if self.is_out:
            # Since then none of them has answered a health probe.
            since = max(server.recovery.began for server in here)
            others = [server.address for server in stable.dispatcher.servers]
            self.stable_answers = any(self._stable_answers(stable, address, since) for address in others)
            if self.stable_answers and not answered:
                for server in here:
                    server.recovery.probe_soon()
        self.uncertain, self.hung = all(faults), ""
        for variant in canaries:
            self._look_at_calls(variant, stable, slower)
        self._answered = {address: at for address, at in self._answered.items() if self._is_there(stable, address)}

    def _look_at_calls(self, variant: Variant, stable: Variant, slower: float) -> None:
        """Note a call that hangs, or windows of which none is answered, once the stable version has answered since."""
        if variant.unusable or not variant.windows:  # its windows may be those that were taken away from it
            self._waits_since.pop(variant, None)
            return
        now, learned, servers = self._clock(), variant.dispatcher.learned, variant.dispatcher.servers
        stable_calls = [call for each in stable.dispatcher.servers for call in each.calls.in_flight.values()]
        under_way = [now - call.sent_at for call in stable_calls]

        def after(cost: float, answered: int) -> float:
            return hung_after(
                slower,
                cost,
                answered=answered,
                stable_rates=stable.dispatcher.learned.rates,
                stable_seconds=stable.recent,
                stable_under_way=under_way,
            )

        for server in servers:
            for call in server.calls.in_flight.values():
                since = call.sent_at + after(learned.cost.seconds(call.rows, call.length), len(learned.rates))
                if now > since:
                    what = f"a call of {call.rows} windows is not answered after {now - call.sent_at:.1f} s"
                    self._note(stable, server, since, what)
        # Whatever it is that they wait for: a call that ran out of time, or a server that is always busy.
        began = max(self._waits_since.get(variant, now), *(server.times.answered_at for server in servers))
        self._waits_since[variant] = began
        if any(server.isolation.active for server in servers):
            del self._waits_since[variant]  # what ended a server has to wait
        elif now > (since := began + after(0.0, 0)):
            what = f"of {variant.windows} windows none is answered for {now - began:.1f} s"
            for server in servers:
                self._note(stable, server, since, what, RETURN_SECONDS)

    def _note(self, stable: Variant, server: Endpoint, since: float, what: str, aside: float = ASIDE_SECONDS) -> None:
        self.uncertain = True
        if self._stable_answers(stable, server.address, since, aside):
            self.hung = f"{server.address}: {what}, and the stable version answers there"

    def _stable_answers(self, stable: Variant, address: str, since: float, aside: float = ASIDE_SECONDS) -> bool:
        """Whether it has answered a health probe there that began after ``since``, ``aside`` seconds ago at least; else
        it is asked.
        """
        began, ended = self._answered.get(address, (-math.inf, math.inf))
        if began >= since:
            return self._clock() - ended >= aside
        server = next((each for each in stable.dispatcher.servers if each.address == address), None)
        if address not in self._asked and server is not None and server.usable:
            self._asked[address] = asyncio.ensure_future(self._ask(server))
        return False

    async def _ask(self, server: Endpoint) -> None:
        """One that does not answer is out from now on, also where no event of the stable version would show it."""
        began = self._clock()
        try:
            await server.recovery.check()
            if server.recovery.fault is None:
                self._answered[server.address] = began, self._clock()
        finally:
            del self._asked[server.address]

    @staticmethod
    def _is_there(stable: Variant, address: str) -> bool:
        return any(each.address == address for each in stable.dispatcher.servers)
