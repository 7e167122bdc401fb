"""The configuration of a shadow run: that of the live workers, in a group of its own, with topics of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from consumer.config.inputs import Inputs
from consumer.config.start import EARLIEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.config.tree import Config

LANE = "backfill"
IN_FLIGHT_SECONDS = 5
"""With a rate: records of so many seconds are in flight at most, fewer than a drain has time for."""


def shadow_name(name: str) -> str:
    """The shadow of a group or a topic, or of a template of topics."""
    return f"{name}.shadow"


def shadow_config(config: Config, topics: Sequence[str], rate: float | None) -> Config:
    """What a shadow run of these input topics runs with; ``rate`` is in records a second, None for no bound.

    One model call at a time, so that live calls find the model server free, and no canary: one model answers the whole
    range. HTTP takes a free port, and no spans are made. Raises ValueError for a topic that no route reads.
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
    limits, seen = config.limits, config.observability
    if rate is not None:
        most = max(1, min(limits.in_flight_events, math.ceil(rate * IN_FLIGHT_SECONDS)))
        limits = limits.model_copy(update={"in_flight_events": most})
    untraced = seen.tracing.model_copy(update={"endpoint": None})
    return config.model_copy(
        update={
            "kafka": config.kafka.model_copy(
                update={"group_id": shadow_name(config.kafka.group_id), "start": EARLIEST}
            ),
            "routes": tuple(routes),
            "model": config.model.model_copy(update={"canary": None}),
            "batching": config.batching.model_copy(update={"max_in_flight": 1}),
            "delivery": config.delivery.model_copy(
                update={"dead_letter_topic": shadow_name(config.delivery.dead_letter_topic)}
            ),
            "limits": limits,
            "observability": seen.model_copy(update={"http": "127.0.0.1:0" if seen.http else "", "tracing": untraced}),
        }
    )
