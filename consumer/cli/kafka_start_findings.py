"""What ``rexstream check`` says of ``kafka.start``, and with ``--connect`` whether and where the group would begin."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException

from consumer.cli.dependencies import Finding
from consumer.config.start import EARLIEST, start_ms
from consumer.delivery.start_offsets import due
from consumer.kafka.clients.cluster import ClientErrors
from consumer.kafka.clients.settings import consumer_settings
from consumer.kafka.consume.start_lookup import StartLookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config

_SUBJECT = "kafka.start"
_SHOWN = 20
"""Most partitions that are named."""


def start_setting_findings(config: Config) -> Iterator[Finding]:
    """What the setting means; nothing for the default."""
    start, group = config.kafka.start, config.kafka.group_id
    if start == EARLIEST:
        return
    if (since := start_ms(start)) is not None and since > time.time() * 1000:
        yield Finding(_SUBJECT, "warn", f"{start} is yet to come: if group {group} is new, it begins at the end then")
    else:
        yield Finding(_SUBJECT, "ok", f"{start}: where group {group} begins if it has no offsets")


def start_offset_findings(config: Config) -> Iterator[Finding]:
    """Whether the group has begun, or where a worker that starts now would commit that it begins. Commits nothing."""
    start, group = config.kafka.start, config.kafka.group_id
    if start == EARLIEST:
        return
    consumer = Consumer(ClientErrors(config.kafka.bootstrap_servers).settings(consumer_settings(config)))
    try:
        lookup = StartLookup(consumer, [route.input for route in config.routes], config)
        committed = lookup.committed()
        left = due(committed)
        others = lookup.other_topics() if left and len(left) == len(committed) else ()
        places = {} if others else lookup.offsets(left)
    except ValueError as error:
        yield Finding(_SUBJECT, "fail", str(error))
    except KafkaException as error:
        yield Finding(_SUBJECT, "warn", f"unknown where group {group} begins: {error.args[0].str()}; check again")
    else:
        if not committed:
            yield Finding(_SUBJECT, "warn", f"group {group} waits until an input topic is there, to begin")
        elif not places:
            where = f" of {', '.join(sorted(others)[:_SHOWN])}, which is no input" if others else ""
            yield Finding(_SUBJECT, "ok", f"is not used: group {group} has offsets{where}")
        else:
            all_of_them = [f"{partition} at {place.offset} ({place.why})" for partition, place in places.items()]
            named = ", ".join(all_of_them[:_SHOWN])
            more = f", and {len(all_of_them) - _SHOWN} more" if len(all_of_them) > _SHOWN else ""
            yield Finding(_SUBJECT, "ok", f"group {group} has no offsets; would begin now: {named}{more}")
    finally:
        consumer.close()
