"""Whether a worker would reach the brokers: those that are configured, and the addresses that these advertise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.cli.dependencies import ANSWER_SECONDS, Finding
from consumer.kafka.clients.cluster import (
    ANOTHER_CLUSTER,
    ClusterUnreachable,
    Reader,
    advertised_addresses,
    unreachable_brokers,
)
from consumer.kafka.clients.reachability import advertised_trouble
from consumer.kafka.clients.settings import metadata_settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from confluent_kafka.admin._metadata import ClusterMetadata

    from consumer.config.tree import Config


def broker_findings(config: Config) -> Generator[Finding, None, ClusterMetadata | None]:
    """What is wrong with the brokers' addresses. Returns what the cluster says of itself, None where that is no use."""
    servers, settings = config.kafka.bootstrap_servers, metadata_settings(config)
    try:
        with Reader(servers, client=settings, timeout=ANSWER_SECONDS) as reader:
            metadata = reader.metadata()
    except ClusterUnreachable as error:
        yield Finding("kafka", "fail", str(error))
        return None
    advertised, cluster = advertised_addresses(metadata), metadata.cluster_id
    if silent := unreachable_brokers(advertised, cluster, client=settings, timeout=ANSWER_SECONDS):
        # Whatever else is asked goes to one of the brokers, and so would fail at random.
        yield Finding("kafka", "fail", f"{servers}: {advertised_trouble(silent)}")
        return None
    others = set(map(str.strip, servers.split(","))) - advertised
    for address, why in unreachable_brokers(others, cluster, client=settings, timeout=ANSWER_SECONDS).items():
        yield _unused_finding(address, why)
    return metadata


def _unused_finding(address: str, why: str) -> Finding:
    """An address of kafka.bootstrap_servers that is not used while another answers; it may have another cluster."""
    if why.startswith(ANOTHER_CLUSTER):
        fix = "name brokers of one cluster only: a worker joins the one that answers first"
        return Finding("kafka.bootstrap_servers", "fail", f"{address}: {why}; {fix}")
    return Finding("kafka.bootstrap_servers", "warn", f"{address}: {why}; mend or remove it: another answers for now")
