"""Group membership of the consumer: whether it has joined, even without partitions, and what a refusal means.

Under KIP-848 a member without partitions gets no callback at all. It does have a member epoch, which the client shows
only in the opaque group metadata meant for transactions: ``CGMDv2:``, then the generation (classic) or member epoch
(KIP-848) as a native 32-bit integer, -1 or 0 before the group answered.

A static member (``group.instance.id``) is refused in two ways. Classic groups accept the newest member with the id and
fence the one before (KIP-345), which must end. KIP-848 groups refuse a new one until the one before has left or its
session has run out, as after a crash: the new one has to try again, with a new client, since a refused one has failed
for good.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer

_log = structlog.stdlib.get_logger(__name__)

AGAIN_SECONDS = 1.0
"""Seconds between two tries to join as a static member that is still taken."""

PLACE_SECONDS = 90.0
"""Brokers keep the place of a member that is gone for group.consumer.session.timeout.ms, by default 45 s and at most
60 s. What is still taken after this is another worker's."""

NO_KIP_848 = (
    "The brokers answer but the group does not: they seem not to support group.protocol: consumer (KIP-848, "
    "Kafka 4.0 or later), or nobody reaches the one that coordinates it ('rexstream check --connect' tells). Leave "
    "group.protocol out of kafka.client, or mend what that broker advertises."
)

_MAGIC = b"CGMDv2:"


def accepted(metadata: object) -> bool | None:
    """Whether ``consumer_group_metadata()`` is that of a member; None when this client has another format."""
    if not isinstance(metadata, bytes) or not metadata.startswith(_MAGIC) or len(metadata) < len(_MAGIC) + 4:
        return None
    number = metadata[len(_MAGIC) : len(_MAGIC) + 4]
    return int.from_bytes(number, sys.byteorder, signed=True) > 0


def is_member(metadata: object) -> bool:
    """Whether ``metadata`` is that of a member, and so fenced.

    Brokers take the offsets of "no member" as those of a client outside the group and do not fence them; that is what
    the client has between losing its membership and its callback. Raises ClientFailed when this client has another
    format, which cannot be read. None, before the first round of the poll thread, is no member.
    """
    member = accepted(metadata) if metadata is not None else False
    if member is None:
        raise ClientFailed(
            "This version of confluent-kafka writes the group's metadata in a form that is not known here, so nobody "
            "could tell whether the group still has this worker: install the one that constraints.txt names, or set "
            "delivery.mode to at_least_once."
        )
    return member


class Membership:
    """Joining the group and being refused by it. The poll thread owns it; ``joined`` is for any thread to read."""

    def __init__(
        self, instance: str | None, join_seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``join_seconds``: how long a group may leave a join unanswered; None where brokers always answer."""
        self._instance = instance
        self._join_seconds = math.inf if join_seconds is None else join_seconds
        self._clock = clock
        self._join_by = clock() + self._join_seconds
        self._refused_since: float | None = None
        self.again_at: float | None = None
        """When a new client has to replace this one, which the group refused; None while this one works."""
        self.joined = False
        """Whether the group has accepted this member; its assignment may be empty."""

    def entered(self) -> None:
        """The group gave an assignment."""
        self.joined = True
        self._refused_since = None

    def look(self, consumer: Consumer) -> None:
        """Ask the client whether it joined. Raises RuntimeError when the brokers answer and the group does not."""
        now = self._clock()
        inside = accepted(consumer.consumer_group_metadata())
        if inside is True:
            self.entered()
        if inside is not False or now < self._join_by:
            return
        self._join_by = now + self._join_seconds
        try:
            consumer.list_topics(timeout=2.0)
        except KafkaException:
            return  # an unreachable broker is waited for
        raise RuntimeError(NO_KIP_848)

    def refused(self, error: KafkaError) -> None:
        """The client failed for good. Returns when a new one should try at ``again_at``.

        Raises ClientFailed when another worker has this one's place or the failure is of another kind, RuntimeError for
        a broker without KIP-848.
        """
        now = self._clock()
        self.joined = False
        if _is(error, KafkaError.UNSUPPORTED_VERSION):
            raise RuntimeError(NO_KIP_848)
        if _is(error, KafkaError.FENCED_INSTANCE_ID):
            raise ClientFailed(
                f"Another worker joined with group.instance.id {self._instance} and has this one's place now "
                "(FENCED_INSTANCE_ID). Give every worker an id of its own in kafka.client, or leave it out. What is "
                "not committed is read again."
            )
        if not _is(error, KafkaError.UNRELEASED_INSTANCE_ID):
            raise ClientFailed(f"The Kafka consumer failed for good: {error.str()}")
        if self._refused_since is None:
            self._refused_since = now
            _log.warning(
                "group.instance.id is still taken (UNRELEASED_INSTANCE_ID): by a worker that crashed, until its "
                "session runs out, or by one that runs; it is tried again",
                instance=self._instance,
                seconds=PLACE_SECONDS,
            )
        elif now - self._refused_since >= PLACE_SECONDS:
            raise ClientFailed(
                f"group.instance.id {self._instance} is taken by another worker, for {PLACE_SECONDS:.0f} s already "
                "(UNRELEASED_INSTANCE_ID). Give every worker an id of its own in kafka.client, or leave it out."
            )
        self.again_at = now + AGAIN_SECONDS
        self._join_by = now + self._join_seconds


def _is(error: KafkaError, code: int) -> bool:
    # A consumer's fatal errors arrive as _FATAL, and the client passes on only the words of their cause.
    return error.code() == code or KafkaError(code).str() in error.str()
