"""The ways to the model that a worker has: usually one, the configured version with the configured bundle.

With ``model.bundles`` or ``model.canary`` there are several: one for each bundle, of the stable version and the canary;
more come where an entry of ``model.bundles`` has an asterisk. ``variant_router`` chooses among them then, and is not
even loaded otherwise.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from consumer.batching.policy import LeastTime
from consumer.extraction.engine import Engine
from consumer.serving.bundle import patterns
from consumer.worker.model_watch import ModelServers
from consumer.worker.variant import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from consumer.batching.policy import CallCost
    from consumer.batching.queue import EventShare
    from consumer.config.tree import Config, ModelConfig
    from consumer.extraction.task import Task
    from consumer.serving.bundle import Bundle
    from consumer.serving.dispatch.endpoint import EndpointStatus
    from consumer.serving.protocol import ServingError
    from consumer.serving.refused import State
    from consumer.telemetry.metrics import Metrics
    from consumer.telemetry.status import VariantsStatus
    from consumer.worker.inference import Inference
    from consumer.worker.parts import Parts
    from consumer.worker.task_runner import TaskRunner, WorkBudget
    from consumer.worker.tracing import Tracing
    from consumer.worker.variant import VariantName
    from consumer.worker.variant_observer import VariantObserver
    from consumer.worker.variant_router import VariantRouter


class Variants:
    """All of them. To be made on the event loop."""

    def __init__(
        self,
        config: Config,
        bundles: Sequence[Bundle],
        parts: Parts | Tracing,
        metrics: Metrics,
        on_state: Callable[[State, ServingError | None], None],
    ) -> None:
        """``bundles``: those of ``model.bundle`` and ``model.bundles``. ``on_state`` is called when the stable version
        can be used in no way any more, and when it can again.

        Raises CredentialFileError.
        """
        self._config, self._parts, self._bundles = config, parts, bundles
        model, canary = config.model, config.model.canary
        self.router: VariantRouter | None = None
        self.all: list[Variant] = []
        self._runner: Callable[[Variant], TaskRunner] | None = None
        self._asked: list[tuple[VariantName, ModelConfig]] = [("stable", model)]
        if len(bundles) == 1 and canary is None and not patterns(model.bundles):
            servers = ModelServers(model, bundles[0])
            self.all.append(self._made("stable", servers, bundles[0], metrics, on_state))
            return
        # Not at the top: a worker with one way to the model should not load what chooses among several.
        from consumer.worker.variant_observer import VariantObserver
        from consumer.worker.variant_router import VariantRouter

        self.router = router = VariantRouter(self.all, canary, metrics, on_state)
        observers: list[VariantObserver] = []

        def one_of_several(name: VariantName, servers: ModelServers, bundle: Bundle) -> Variant:
            observer = VariantObserver(router, observers, name, metrics)
            observer.variant = self._made(name, servers, bundle, observer, router.state_changed)
            return observer.variant

        self._one_of_several = one_of_several
        if canary is not None:
            asked = model.model_copy(update={"label": canary.label, "version": canary.version})
            self._asked.append(("canary", asked))
        for name, its in self._asked:
            for bundle in bundles:
                self.all.append(one_of_several(name, ModelServers(its, bundle), bundle))

    @property
    def main(self) -> Variant:
        """The way to the stable version that is in use, or was in use last."""
        return self.all[0] if self.router is None else self.router.in_use("stable")

    @property
    def endpoints(self) -> list[EndpointStatus]:
        """The model servers at this moment, as the stable version is reached there."""
        return self.all[0].dispatcher.endpoints if self.router is None else self.router.shown.endpoints()

    @property
    def state(self) -> State:
        """Whether the stable version can be used."""
        return self.all[0].dispatcher.state if self.router is None else self.router.state

    @property
    def windows(self) -> int:
        """Windows that wait or are in a call."""
        return sum(variant.windows for variant in self.all)

    def look(self) -> VariantsStatus:
        """See what has changed, twice a second; for ``/status``, what there is besides the endpoints."""
        if self.router is None:
            return {}
        self.router.look()
        return self.router.status()

    def follow(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Follow the addresses of the model servers; ``start`` runs it beside the rest."""
        self._start = start
        for variant in self.all:
            start(variant.servers.run(variant.dispatcher))

    async def usable(self) -> None:
        """Begin to send, after ``follow``; return once the stable version has answered a known-good window of one of
        the bundles. A model that fits none of them is waited out here as it is later.
        """
        for variant in self.all:
            self._start(variant.dispatcher.pump())
        if wanted := patterns(self._config.model.bundles):
            from consumer.worker.bundle_watch import BundleWatch

            self._start(BundleWatch(wanted, self._bundles).run(self.add))
        if self.router is None:
            await self.all[0].dispatcher.health_probe()
        else:
            await self.router.all_tried()

    def add(self, bundle: Bundle) -> None:
        """Use another bundle as well, from now on; the worker runs, with several bundles or an asterisk configured.

        Raises CredentialFileError; nothing has changed then.
        """
        made = [(name, ModelServers(its, bundle)) for name, its in self._asked]
        for name, servers in made:
            variant = self._one_of_several(name, servers, bundle)
            variant.dispatcher.costs(self.all[0].policy.cost)
            variant.dispatcher.state = self.state  # or it would end a pause before it has shown anything
            if self._runner is not None:
                variant.runner = self._runner(variant)
            self.all.append(variant)
            self._start(servers.run(variant.dispatcher))
            self._start(variant.dispatcher.pump())
        self.look()

    def costs(self, cost: CallCost) -> None:
        """Expect calls to cost so much, of whichever version."""
        for variant in self.all:
            variant.dispatcher.costs(cost)

    def infer(
        self,
        budgets: Mapping[str, WorkBudget],
        event_tokens: int,
        share: Callable[[CallCost], EventShare],
        over_share: Callable[[], None],
    ) -> Callable[[str, Task, Any], Coroutine[Any, Any, Inference]]:
        """What runs one task on one text. The arguments are those of ``TaskRunner``, ``share`` for a cost of calls."""

        def runner(variant: Variant) -> TaskRunner:
            return self._parts.task_runner(
                variant.engine,
                variant.dispatcher,
                budgets,
                event_tokens=event_tokens,
                share=share(variant.policy.cost),
                over_share=over_share,
            )

        self._runner = runner
        for variant in self.all:
            variant.runner = runner(variant)
        return self.all[0].runner.infer if self.router is None else self.router.infer

    def renewals(self) -> list[Coroutine[Any, Any, None]]:
        """New connections with the files of ``model.tls`` as they are now, to be awaited.

        Raises CredentialFileError.
        """
        return [client.renew() for variant in self.all for client in variant.servers.clients.values()]

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(variant.servers.close() for variant in self.all))

    def _made(
        self,
        name: VariantName,
        servers: ModelServers,
        bundle: Bundle,
        observer: Any,
        on_state: Callable[[State, ServingError | None], None],
    ) -> Variant:
        config, batching = self._config, self._config.batching
        engine = Engine(bundle.tokenizer, bundle.limits, config.limits.of_extraction())
        policy = LeastTime(batching.max_tokens, batching.max_in_flight, batching.cost.of_calls())
        dispatcher = self._parts.dispatcher(
            servers.clients,
            policy,
            engine.known_good_window(),
            config.model.name,
            observer,
            on_state,
            on_endpoint=servers.endpoint if self.router is None else servers.endpoint_of_several,
            lanes=config.lanes(),
            trial=self.router is not None,
        )
        return Variant(name, bundle, engine, servers, policy, dispatcher)
