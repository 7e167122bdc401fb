"""Chooses among several ways to the model: which version an event is for, and which bundle fits what is served.

A variant can be used while its health probes are answered: the contract in every answer tells whether its bundle and
the served version belong together. So at most one bundle fits what a model server serves, and the others wait for a
version that they fit. Loaded only where there are several variants.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from consumer.delivery.dead_letters import raised_in
from consumer.events import BadInput
from consumer.resilience.canary import RETURN_SECONDS, CanaryFallback, place_of
from consumer.serving.dispatch.endpoint import unusable
from consumer.serving.dispatch.suspected import given_up, isolated
from consumer.serving.errors import of_canary
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.refused import State, WindowRefused
from consumer.worker.canary_evidence import CanaryEvidence
from consumer.worker.failures import is_defect
from consumer.worker.variant import MOVED
from consumer.worker.variant_status import ShownVariants
from consumer.worker.variant_suspects import careful

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.config.canary import CanaryConfig
    from consumer.events import Work
    from consumer.extraction.task import Task
    from consumer.serving.dispatch.suspected import Suspect
    from consumer.telemetry.metrics import Metrics
    from consumer.telemetry.status import VariantsStatus
    from consumer.worker.inference import Inference
    from consumer.worker.variant import Variant, VariantName

FIRST_SECONDS = 10.0
"""So long a worker waits at its start for the first answer of a canary, or of a bundle that fits nothing yet."""

SWITCH_SECONDS = 1.0
"""So long a version may fit none of several bundles before that is its fault: its label may have moved to a version of
another, which is asked at once and answers in milliseconds."""

_log = structlog.stdlib.get_logger(__name__)


class VariantRouter:
    """Belongs to the event loop."""

    def __init__(
        self,
        variants: Sequence[Variant],
        canary: CanaryConfig | None,
        metrics: Metrics,
        on_state: Callable[[State, ServingError | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``variants`` may be filled later, before the first ``look``; ``canary`` is None where there are only bundles.

        ``on_state`` is called when no variant of the stable version can be used, and when one can again.
        """
        self._variants, self._metrics, self._on_state, self._clock = variants, metrics, on_state, clock
        self._share = 0.0 if canary is None else canary.share
        self.fallback = CanaryFallback(math.inf if canary is None else canary.slower)
        self._in_use: dict[VariantName, Variant] = {}
        self.shown = ShownVariants(variants)
        self._suspects: dict[asyncio.Task[Inference], Sequence[Suspect]] = {}
        """Windows that were isolated where their extraction has just been taken away."""
        self._evidence = CanaryEvidence(clock)
        self._stable_usable = asyncio.Event()
        self.state = State.OK
        self._usable: frozenset[Variant] = frozenset()
        self._begun = self._is_looking = False
        self._fitted_at: dict[VariantName, float] = {}  # when a bundle was last seen to fit
        metrics.canary_share(self._share)

    async def all_tried(self) -> None:
        """Return once the stable version can be used, and every variant has had its chance to answer."""
        await self._stable_usable.wait()
        end = self._clock() + FIRST_SECONDS
        while self._clock() < end and any(
            server.trial and ((fault := server.recovery.fault) is None or fault.relief is Relief.FEWER_IN_FLIGHT)
            for variant in self._variants
            for server in variant.dispatcher.servers
        ):
            await asyncio.sleep(0.05)
        self.look()
        self._begun = True

    async def infer(self, text: str, task: Task, work: Work) -> Inference:
        """As ``TaskRunner.infer``, at the variant that the event is for.

        It starts again at level 0 elsewhere when that variant cannot be used any more and another one can, or the
        canary loses its share. What the canary cannot answer is the stable version's, and refused only by that.
        """
        restarts, refused, ended_servers = 0, "", False
        suspects: tuple[Variant, Sequence[Suspect]] | None = None
        while True:
            variant = self._chosen(work)
            runner = variant.runner if suspects is None else careful(variant, *suspects)
            attempt = asyncio.ensure_future(runner.infer(text, task, work))
            attempt.add_done_callback(_looked_at)
            variant.running[attempt] = work.place
            try:
                await asyncio.wait({attempt})
            finally:
                del variant.running[attempt]
                if (found := self._suspects.pop(attempt, None)) is not None:
                    suspects = variant, found
                attempt.cancel()  # in case this task was: the event's assignment ended
            if attempt.cancelled() and attempt.cancelling():  # by ``_leave``
                restarts += 1
                continue
            error = asyncio.CancelledError() if attempt.cancelled() else attempt.exception()
            if error is None:
                if variant.name == "canary" or refused:
                    self._ended(refused=refused, ended_servers=ended_servers)
                inference = attempt.result()
                return replace(inference, restarts=inference.restarts + restarts)
            if variant.name != "canary" or not (isinstance(error, BadInput | WindowRefused) or is_defect(error)):
                try:
                    raise error
                finally:
                    del error, attempt  # its frames hold them, and the text: a cycle for the garbage collector
            if isinstance(error, WindowRefused) and error.ended_servers:
                suspects, ended_servers = (variant, given_up(error)), True
            work.variant, refused, restarts = self.in_use("stable"), _without_text(error), restarts + 1
            # The record's place is in the line. Too many of them end the canary's share, so they are not too many.
            _log.warning("the canary had no result; the stable version is asked", task=task.name, reason=refused)
            del error  # its frames hold the canary's extraction

    def in_use(self, name: VariantName) -> Variant:
        """The variant of that name that is in use, or was in use last; before one could be used, the first."""
        return self._in_use.get(name) or next(each for each in self._variants if each.name == name)

    def change(self, canary: CanaryConfig | None) -> None:
        """The canary's share and bound have changed: begin anew with it."""
        self._share = 0.0 if canary is None else canary.share
        self._metrics.canary_share(self._share)
        if canary is not None:
            self.fallback.slower = canary.slower
        self.fallback.reset()
        for each in self._variants:
            if each.name == "canary":
                each.dispatcher.learned.measured(each.dispatcher.learned.cost)
        self._metrics.canary_fallback(None)
        self.look()

    def state_changed(self, _state: State, _error: ServingError | None) -> None:
        """The state of one dispatcher changed."""
        self.look_soon()

    def look_soon(self) -> None:
        """Look after what is happening at this moment."""
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_soon(self.look)

    def look(self) -> None:
        """See which variants can be used, and move the events that wait at one which cannot."""
        self._is_looking = False
        before = self._usable
        for variant in self._variants:
            variant.unusable = unusable(variant.dispatcher.servers)
            if variant.unusable and variant.windows and not variant.running:
                variant.dispatcher.forget_withdrawn()  # it may be the bundle of a version that never comes again
        self._usable = frozenset(each for each in self._variants if not each.unusable)
        for name in dict.fromkeys(each.name for each in self._variants):
            self._look_at(name, [each for each in self._variants if each.name == name], before)
        self._report()
        self._look_at_canary()

    def _look_at(self, name: VariantName, mine: list[Variant], before: frozenset[Variant]) -> None:
        usable = [each for each in mine if not each.unusable]
        if usable:
            self._fitted_at[name] = self._clock()
        else:
            if any(each in before for each in mine):
                # What is served changed, perhaps: the bundle that fits it now should not wait for its next try.
                for server in (server for each in mine for server in each.dispatcher.servers):
                    server.recovery.probe_soon()
            return
        for each in (one for one in mine if one.unusable):
            self._leave(each)
        best = [each for each in usable if each not in before] or usable  # what fits since now is what is served
        if self._in_use.get(name) not in best:
            self._in_use[name] = used = best[0]
            if len(mine) > 1:
                waiting = [each.bundle.name for each in mine if each.unusable]
                _log.info("this bundle is in use", variant=name, bundle=used.bundle.name, waiting=waiting)

    def _report(self) -> None:
        """Report the state of the stable version if it changed: one variant that can be used is enough."""
        stable = [each for each in self._variants if each.name == "stable"]
        states = {each.dispatcher.state for each in stable}
        if any(not each.unusable for each in stable):
            self._stable_usable.set()
        if not self._is_missing(stable):
            states.add(State.OK)
        state = next(each for each in (State.OK, State.OUTAGE, State.DEPLOYMENT_FAULT) if each in states)
        if state is not self.state:
            self.state = state
            if state is State.OK:
                self._on_state(state, None)
                return
            failure = Failure.TRANSIENT if state is State.OUTAGE else Failure.DEPLOYMENT
            reasons = dict.fromkeys(each.unusable for each in stable)
            self._on_state(state, ServingError(failure, state.name, "; ".join(reasons)))

    def _is_missing(self, mine: list[Variant]) -> bool:
        """Whether none can be used; of several bundles, for ``SWITCH_SECONDS``."""
        since = self._fitted_at.get(mine[0].name, -math.inf) if len(mine) > 1 else -math.inf
        return all(each.unusable for each in mine) and self._clock() - since >= SWITCH_SECONDS

    def _look_at_canary(self) -> None:
        canaries = [each for each in self._variants if each.name == "canary"]
        before = self.fallback.reason
        if not canaries or not self._begun:
            return
        canary, stable, seen = self.in_use("canary"), self.in_use("stable"), self._evidence
        seen.look(canaries, stable, self.fallback.slower)
        reasons = dict.fromkeys(of_canary(each.unusable) for each in canaries)
        self.fallback.look(
            self._clock(),
            unusable="; ".join(reasons) if self._is_missing(canaries) else "",
            stable_usable=any(each.name == "stable" for each in self._usable) and seen.stable_answers,
            rates=canary.dispatcher.learned.rates,
            stable_rates=stable.dispatcher.learned.rates,
            patience=RETURN_SECONDS if seen.is_out else 0.0,
            uncertain=seen.uncertain,
        )
        if seen.hung:
            self.fallback.hangs(seen.hung)
        if self.fallback.reason != before:
            self._tell()

    def _tell(self) -> None:
        """Say loudly that the canary lost its events, or that it has them again."""
        reason = self.fallback.reason
        # Without a share nobody misses it: its label may not have been given yet, or be taken away again.
        self._metrics.canary_fallback(reason if self._share > 0 else None)
        if reason is None:
            _log.info("the canary can be used again and gets its share", share=self._share)
            return
        if self._share > 0:
            _log.error(
                "the canary fell back: the stable version answers all events",
                reason=reason,
                detail=self.fallback.detail,
                share=self._share,
                ends="by itself" if reason == "unavailable" else "when model.canary.share is changed, or at a restart",
            )
        else:
            _log.info("the canary cannot be used, and has no share", reason=reason, detail=self.fallback.detail)
        for each in self._variants:
            if each.name == "canary":
                self._leave(each)

    def _leave(self, variant: Variant) -> None:
        """What runs there starts again where it is sent."""
        suspects = isolated(variant.dispatcher)
        for attempt, place in variant.running.items():
            if place in suspects:
                self._suspects[attempt] = suspects[place]
            attempt.cancel(MOVED)

    def _ended(self, *, refused: str, ended_servers: bool) -> None:
        before = self.fallback.reason
        self.fallback.ended(refused=refused, ended_servers=ended_servers)
        if self.fallback.reason != before:
            self._tell()

    def _chosen(self, work: Work) -> Variant:
        """The variant for an event: the one that it began at, as long as that can be used."""
        began: Any = work.variant
        if began is not None:
            name: VariantName = "stable" if self.fallback.reason is not None else began.name
            if began.name == name and began in self._usable:
                return began  # type: ignore[no-any-return]
        else:
            name = "canary" if self._is_canarys(work) else "stable"
        usable = [each for each in self._usable if each.name == name]
        # Several: model servers in the middle of a roll-out.
        found = min(usable, key=_load, default=self.in_use(name))
        work.variant = found
        return found

    def _is_canarys(self, work: Work) -> bool:
        if self._share <= 0 or self.fallback.reason is not None:
            return False
        key = work.key
        if key is None:
            place = work.place
            key = f"{place.partition} {place.offset}".encode()
        return place_of(key) < self._share

    def status(self) -> VariantsStatus:
        """For ``/status``: the canary, and every variant."""
        fallback = self.fallback
        canary = {"share": self._share, "fallback": fallback.reason, "detail": fallback.detail}
        return self.shown.status(canary if any(each.name == "canary" for each in self._variants) else None)


def _load(variant: Variant) -> float:
    """Windows for each endpoint that takes some."""
    return variant.windows / max(1, sum(each.usable for each in variant.dispatcher.servers))


def _without_text(error: BaseException) -> str:
    """Why the canary had no result, without anything of the review: the server's words, else a reason or a class."""
    if isinstance(error, WindowRefused):
        return f"{error.reason}: {error.error}"
    return error.reason if isinstance(error, BadInput) else f"{type(error).__name__} in {raised_in(error)}"


def _looked_at(attempt: asyncio.Task[Inference]) -> None:
    """Its exception is known, or nobody wants it any more: asyncio need not log it."""
    if not attempt.cancelled():
        attempt.exception()
