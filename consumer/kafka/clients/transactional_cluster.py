"""Whether a cluster can keep what exactly_once promises."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from consumer.kafka.clients.client_settings import metadata_settings
from consumer.kafka.clients.cluster import ClusterUnreachable, is_embedded

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.config.tree import Config

logger = logging.getLogger(__name__)


def refuse_embedded(config: Config, stopping: Callable[[], bool], look: Callable[..., bool] = is_embedded) -> None:
    """Wait until the cluster answers, or ``stopping()``. Raises ValueError when it is the embedded broker.

    The embedded broker answers OK to everything, commits no offset of a transaction and shows what was aborted: a
    worker on it would double and lose without a sign.
    """
    servers = config.kafka.bootstrap_servers
    said = False
    while not stopping():
        try:
            embedded = look(servers, client=metadata_settings(config), timeout=5.0)
        except ClusterUnreachable as error:
            if not said:
                logger.warning("exactly_once has to know the cluster first: %s", error)
                said = True
            continue
        if embedded:
            raise ValueError(
                f"delivery.mode is exactly_once, and {servers} is the embedded broker, whose transactions are not real:"
                " use Apache Kafka, or delivery.mode at_least_once"
            )
        return
