"""Spans of model calls, which windows of many events share: in the trace of one event, with links to the others.

Names are those of the semantic conventions for RPC and gRPC; the project's own begin with ``rexstream.``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, set_span_in_context

from consumer.serving import descriptors
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.protocol import ServingError
from consumer.worker.event_spans import failed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer, ModelClient
    from consumer.serving.refused import WindowAnswer
    from consumer.worker.event_spans import EventSpans, Recorded

MAX_LINKS = 32
"""Links of one call to events: it has hundreds of windows. Of one event to calls the SDK keeps 128."""

_METHOD = descriptors.PREDICT.path.removeprefix("/")


class CallSpans:
    """Spans of model calls, which windows of many events share."""

    def __init__(self, events: EventSpans) -> None:
        self._events = events
        self._waiting: dict[int, tuple[asyncio.Future[WindowAnswer], Window, Recorded]] = {}
        """Windows of recorded events at the dispatcher, by identity."""

    def submitted(self, window: Window, origin: Hashable, future: asyncio.Future[WindowAnswer]) -> None:
        """``window`` of the event at ``origin`` waits for its answer."""
        if (event := self._events.of(origin)) is not None:
            self._waiting[id(window)] = future, window, event
            future.add_done_callback(partial(self._answered, id(window)))

    def _answered(self, key: int, future: asyncio.Future[WindowAnswer]) -> None:
        # It may have been submitted again meanwhile.
        if (found := self._waiting.get(key)) is not None and found[0] is future:
            del self._waiting[key]

    async def predict(
        self,
        client: ModelClient,
        where: Mapping[str, str | int],
        windows: Sequence[Window],
        length: int,
        timeout: float,
    ) -> Answer:
        """``client.predict``, with a span if it has windows of recorded events."""
        found = (self._waiting.get(id(window)) for window in windows)
        events = list({id(each[2]): each[2] for each in found if each is not None}.values())
        if not events:
            return await client.predict(windows, length, timeout)
        span = self._events.start_span(
            _METHOD,
            # In the trace of one of them; the others lead here by links.
            set_span_in_context(events[0].span, Context()),
            SpanKind.CLIENT,
            {
                **where,
                "rpc.system.name": "grpc",
                "rpc.method": _METHOD,
                "rexstream.windows": len(windows),
                "rexstream.tokens": sum(window.length for window in windows),
                "rexstream.padded_tokens": len(windows) * length,
                "rexstream.recorded_events": len(events),
            },
            [Link(event.span.get_span_context()) for event in events[:MAX_LINKS]],
        )
        for event in events:
            if event.span.is_recording():
                event.span.add_link(span.get_span_context())
        try:
            answer = await client.predict(windows, length, timeout)
        except ServingError as error:
            if error.code in grpc.StatusCode.__members__:  # else the answer came, and could not be used
                span.set_attribute("rpc.response.status_code", error.code)
            failed(span, error.code, error.failure.value)
            raise
        except BaseException as error:
            failed(span, type(error).__qualname__)
            raise
        else:
            span.set_attributes(
                {
                    "rpc.response.status_code": "OK",
                    "rexstream.model.name": answer.model_name,
                    "rexstream.model.version": answer.model_version,
                    "rexstream.overflowed_windows": len(answer.overflowed),
                }
            )
            return answer
        finally:
            span.end()


class TracedClient:
    """A model client whose calls have spans."""

    def __init__(self, spans: CallSpans, address: str, client: ModelClient) -> None:
        self._spans = spans
        self._where = server_of(address)
        self._client = client

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        """As the client's."""
        return await self._spans.predict(self._client, self._where, windows, padded_length, timeout)

    async def ready(self) -> bool:
        """As the client's."""
        return await self._client.ready()

    async def close(self) -> None:
        """As the client's."""
        await self._client.close()


class TracedDispatcher(Dispatcher):
    """A dispatcher that says which event a window comes from, to the spans of its calls."""

    def __init__(self, spans: CallSpans, clients: Mapping[str, ModelClient], *args: Any, **kwargs: Any) -> None:
        self._spans = spans
        traced = {address: TracedClient(spans, address, client) for address, client in clients.items()}
        super().__init__(traced, *args, **kwargs)

    def resolved(self, addresses: Collection[str], connect: Callable[[str], ModelClient]) -> None:
        """As ``Dispatcher.resolved``."""
        super().resolved(addresses, lambda address: TracedClient(self._spans, address, connect(address)))

    def submit(
        self, window: Window, deadline: float, level: int, origin: Hashable = None, *args: Any, **kwargs: Any
    ) -> asyncio.Future[WindowAnswer]:
        """As ``Dispatcher.submit``."""
        future = super().submit(window, deadline, level, origin, *args, **kwargs)
        self._spans.submitted(window, origin, future)
        return future


def server_of(address: str) -> dict[str, str | int]:
    """``server.address`` and, where there is one, ``server.port`` of a target of gRPC."""
    plain = address.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").rpartition("/")[2]
    host, colon, port = plain.rpartition(":")
    if colon and port.isdecimal() and not address.startswith("unix"):
        return {"server.address": host.strip("[]"), "server.port": int(port)}
    return {"server.address": address.removeprefix("unix:")}
