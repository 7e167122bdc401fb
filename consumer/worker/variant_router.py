"""Chooses among several ways to the model: which version an event is for, and which bundle fits what is served.

A variant can be used while its health probes are answered: the contract in every answer tells whether its bundle and
the served version belong together. So at most one bundle fits what a model server serves, and the others wait for a
version that they fit. Loaded only where there are several variants.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

import structlog

from consumer.delivery.dead_letters import raised_in
from consumer.events import BadInput
from consumer.resilience.canary import CanaryFallback, place_of
from consumer.serving.dispatch.endpoint import unusable
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.refused import State, WindowRefused
from consumer.worker.failures import is_defect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.config.canary import CanaryConfig
    from consumer.events import Work
    from consumer.extraction.task import Task
    from consumer.serving.dispatch.endpoint import EndpointStatus
    from consumer.telemetry.metrics import Metrics
    from consumer.telemetry.status import VariantsStatus
    from consumer.worker.inference import Inference
    from consumer.worker.variant import Variant, VariantName

FIRST_SECONDS = 10.0
"""So long a worker waits at its start for the first answer of a canary, or of a bundle that fits nothing yet."""

SWITCH_SECONDS = 1.0
"""So long a version may fit none of several bundles before that is its fault: its label may have moved to a version of
another, which is asked at once and answers in milliseconds."""

_STATES = ("ok", "busy", "trial", "outage", "deployment_fault", "gone")
"""Of an endpoint that several bundles try, the first of these is its state."""

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
        self._stable_usable = asyncio.Event()
        self.state = State.OK
        self._usable: frozenset[Variant] = frozenset()
        self._begun = self._is_looking = False
        self._fitted_at: dict[VariantName, float] = {}  # when a bundle was last seen to fit
        self._failures: dict[tuple[Variant, str], tuple[int, int]] = {}
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
        restarts, refused = 0, ""
        while True:
            variant = self._chosen(work)
            attempt = asyncio.ensure_future(variant.runner.infer(text, task, work))
            attempt.add_done_callback(_looked_at)
            variant.running.add(attempt)
            try:
                await asyncio.wait({attempt})
            finally:
                variant.running.discard(attempt)
                attempt.cancel()  # in case this task was: the event's assignment ended
            if attempt.cancelled() and attempt.cancelling():  # by ``_leave``
                restarts += 1
                continue
            error = asyncio.CancelledError() if attempt.cancelled() else attempt.exception()
            if error is None:
                if variant.name == "canary" or refused:
                    self._ended(refused=refused)
                inference = attempt.result()
                return inference._replace(restarts=inference.restarts + restarts)
            if variant.name != "canary" or not (isinstance(error, BadInput | WindowRefused) or is_defect(error)):
                raise error
            work.variant, refused, restarts = self.in_use("stable"), _without_text(error), restarts + 1
            # The record's place is in the line. Too many of them end the canary's share, so they are not too many.
            _log.warning("the canary had no result; the stable version is asked", task=task.name, reason=refused)

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
            _leave(each)
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
        self.fallback.look(
            self._clock(),
            unusable="; ".join(dict.fromkeys(map(_of_canary, canaries))) if self._is_missing(canaries) else "",
            stable_usable=any(each.name == "stable" for each in self._usable),
            rates=self.in_use("canary").dispatcher.learned.rates,
            stable_rates=self.in_use("stable").dispatcher.learned.rates,
        )
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
                _leave(each)

    def _ended(self, *, refused: str) -> None:
        before = self.fallback.reason
        self.fallback.ended(refused=refused)
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

    # -- what is shown ----------------------------------------------------------------------------------------------

    def endpoints(self) -> list[EndpointStatus]:
        """The model servers as the stable version is reached there: of several bundles, what the best one finds.

        Failed health probes of a bundle that waits for its version are no failures of the server.
        """
        found: dict[str, list[tuple[Variant, EndpointStatus]]] = {}
        for variant in self._variants:
            if variant.name == "stable":
                for each in variant.dispatcher.endpoints:
                    found.setdefault(each.address, []).append((variant, each))
        self._failures = {key: counts for key, counts in self._failures.items() if key[1] in found}
        return [self._one(its) for its in found.values()]

    def _one(self, its: list[tuple[Variant, EndpointStatus]]) -> EndpointStatus:
        failed = 0
        for variant, each in its:
            before, shown = self._failures.get((variant, each.address), (0, 0))
            if self.shows(variant):
                shown += max(0, each.failed - before)
            self._failures[variant, each.address] = each.failed, shown
            failed += shown
        _, best = min(its, key=lambda one: _STATES.index(one[1].state))
        return best._replace(
            in_flight=sum(each.in_flight for _, each in its),
            answered=sum(each.answered for _, each in its),
            suspected=sum(each.suspected for _, each in its),
            failed=failed,
        )

    def shows(self, variant: Variant | None) -> bool:
        """Whether failed calls of it are worth counting: it can be used, or none of its version can."""
        return variant in self._usable or not any(each.name == (variant and variant.name) for each in self._usable)

    def status(self) -> VariantsStatus:
        """For ``/status``: the canary, and every variant."""
        reason = self.fallback.reason
        canary = {"share": self._share, "fallback": reason, "detail": self.fallback.detail}
        return {
            "canary": canary if any(each.name == "canary" for each in self._variants) else None,
            "variants": [
                {
                    "variant": each.name,
                    "bundle": each.bundle.name,
                    "usable": not each.unusable,
                    "reason": each.unusable,
                    "windows": each.windows,
                }
                for each in self._variants
            ],
        }


def _load(variant: Variant) -> float:
    """Windows for each endpoint that takes some."""
    return variant.windows / max(1, sum(each.usable for each in variant.dispatcher.servers))


def _of_canary(variant: Variant) -> str:
    """Why it cannot be used, with the canary's keys in place of the stable version's."""
    return variant.unusable.replace("change model.", "change model.canary.")


def _without_text(error: BaseException) -> str:
    """Why the canary had no result, without anything of the review: the server's words, else a reason or a class."""
    if isinstance(error, WindowRefused):
        return f"{error.reason}: {error.error}"
    return error.reason if isinstance(error, BadInput) else f"{type(error).__name__} in {raised_in(error)}"


def _leave(variant: Variant) -> None:
    """What runs there starts again where the router sends it."""
    for attempt in variant.running:
        attempt.cancel()


def _looked_at(attempt: asyncio.Task[Inference]) -> None:
    """Its exception is known, or nobody wants it any more: asyncio need not log it."""
    if not attempt.cancelled():
        attempt.exception()
