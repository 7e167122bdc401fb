"""The configuration of a shadow run: that of the live workers, in a group of its own, with topics of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from consumer.batching.sparing import share_tokens
from consumer.config.inputs import Inputs
from consumer.config.start import EARLIEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.config.tree import Config

LANE = "backfill"
IN_FLIGHT_SECONDS = 5
"""With a rate: records of so many seconds are in flight at most, fewer than a drain has time for."""
IN_FLIGHT_EVENTS = 32
"""With a share: enough to fill a small call, and not many more, since a drain waits for them."""


def shadow_name(name: str) -> str:
    """The shadow of a group or a topic, or of a template of topics."""
    return f"{name}.shadow"


def shadow_config(config: Config, topics: Sequence[str], rate: float | None = None, share: float = 1.0) -> Config:
    """What a shadow run of these input topics runs with; ``rate`` is in records a second, None for no bound.

    One model call at a time, and with a ``share`` below 1 a small one, so that live calls find the model server free.
    One model answers the whole range: no canary. HTTP takes a free port, and no spans are made. Raises ValueError for a
    topic that no route reads.
    """
    by_input = {route.input: route for route in config.routes}
    inputs = Inputs(by_input)
    routes = []
    for topic in dict.fromkeys(topics):
        found = inputs.find(topic)
        if found is None:
            raise ValueError(f"{topic} is no input of this configuration; its inputs are {', '.join(by_input)}")
        changed = {"input": topic, "output": shadow_name(by_input[found].output), "lane": LANE}
        routes.append(by_input[found].model_copy(update=changed))
    limits, seen, batching = config.limits, config.observability, config.batching
    most = limits.in_flight_events if share == 1 else min(limits.in_flight_events, IN_FLIGHT_EVENTS)
    if rate is not None:
        most = max(1, min(most, math.ceil(rate * IN_FLIGHT_SECONDS)))
    calls = {"max_in_flight": 1, "max_tokens": share_tokens(share, batching.max_tokens)}
    untraced = seen.tracing.model_copy(update={"endpoint": None})
    return config.model_copy(
        update={
            "kafka": config.kafka.model_copy(
                update={"group_id": shadow_name(config.kafka.group_id), "start": EARLIEST}
            ),
            "routes": tuple(routes),
            "model": config.model.model_copy(update={"canary": None}),
            "batching": batching.model_copy(update=calls),
            "delivery": config.delivery.model_copy(
                update={"dead_letter_topic": shadow_name(config.delivery.dead_letter_topic)}
            ),
            "limits": limits.model_copy(update={"in_flight_events": most}),
            "observability": seen.model_copy(update={"http": "127.0.0.1:0" if seen.http else "", "tracing": untraced}),
        }
    )
