"""A consumer's place in its group: whether it has one, also without partitions, and what it means to be refused one.

Under KIP-848 a member without partitions sees no callback at all. What it does have is a member epoch, and the only
place where the client shows that is the opaque group metadata meant for transactions: ``CGMDv2:``, then the generation
(classic) or member epoch (KIP-848) as a native 32-bit integer, -1 or 0 before the group answered.

A static member (``group.instance.id``) is refused in two ways. Classic groups give the place to whoever comes last and
fence the one before (KIP-345): that one must end. KIP-848 groups keep it for the one before until it has left or its
session has run out, as after a crash: whoever comes has to come again, with a new client, since this one is of no use.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""Between two tries to take a static member's place."""

PLACE_SECONDS = 90.0
"""Brokers keep the place of a member that is gone for group.consumer.session.timeout.ms, by default 45 s and at most
60 s. What is still taken after this is another worker's."""

NO_KIP_848 = (
    "The brokers answer but the group does not: they seem not to support group.protocol: consumer (KIP-848, "
    "Kafka 4.0 or later). Leave group.protocol out of kafka.client."
)

_MAGIC = b"CGMDv2:"


class Member(Protocol):
    """What is needed of ``confluent_kafka.Consumer``."""

    def consumer_group_metadata(self) -> Any:
        """Opaque; see ``accepted``."""

    def list_topics(self, *, timeout: float) -> Any:
        """Raises KafkaException when no broker answers."""


def accepted(metadata: object) -> bool | None:
    """Whether ``consumer_group_metadata()`` is that of a member; None when this client writes it in another way."""
    if not isinstance(metadata, bytes) or not metadata.startswith(_MAGIC) or len(metadata) < len(_MAGIC) + 4:
        return None
    number = metadata[len(_MAGIC) : len(_MAGIC) + 4]
    return int.from_bytes(number, sys.byteorder, signed=True) > 0


def is_member(metadata: object) -> bool:
    """Whether ``metadata`` is that of a member, and so fenced.

    Brokers take the offsets of "no member" as those of a client outside the group and do not fence them; that is what
    the client has between losing its membership and telling us so. Raises ClientFailed when this client writes it in
    another way, so that nobody could tell.
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
    """The poll thread's, but for ``joined``, which others may read."""

    def __init__(
        self, instance: str | None, join_seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``join_seconds``: how long a group may leave a join unanswered; None where brokers always answer."""
        self._instance = instance
        self._join_seconds = join_seconds
        self._clock = clock
        self._join_by = None if join_seconds is None else clock() + join_seconds
        self._refused_since: float | None = None
        self._again_at: float | None = None
        self.joined = False
        """Whether the group has accepted this member; its assignment may be empty."""

    def entered(self) -> None:
        """The group gave an assignment."""
        self.joined = True
        self._refused_since = None

    def left(self) -> None:
        """The group took its assignment away."""
        self.joined = False

    def look(self, member: Member) -> None:
        """Ask the client how it stands. Raises RuntimeError when the brokers answer and the group does not."""
        now = self._clock()
        inside = accepted(member.consumer_group_metadata())
        if inside is True:
            self.entered()
        if inside is not False or self._join_by is None or now < self._join_by:
            return
        self._wait_longer(now)
        try:
            member.list_topics(timeout=2.0)
        except KafkaException:
            return  # an unreachable broker is waited for
        raise RuntimeError(NO_KIP_848)

    def refused(self, error: KafkaError) -> None:
        """The client failed for good. Returns when a new one should try ``again``.

        Raises ClientFailed when another worker has this one's place or the failure is of another kind, RuntimeError for
        a broker without KIP-848.
        """
        now = self._clock()
        self.left()
        if _says(error, KafkaError.UNSUPPORTED_VERSION):
            raise RuntimeError(NO_KIP_848)
        if _says(error, KafkaError.FENCED_INSTANCE_ID):
            raise ClientFailed(
                f"Another worker joined with group.instance.id {self._instance} and has this one's place now "
                "(FENCED_INSTANCE_ID). Give every worker an id of its own in kafka.client, or leave it out. What is "
                "not committed is read again."
            )
        if not _says(error, KafkaError.UNRELEASED_INSTANCE_ID):
            raise ClientFailed(f"The Kafka consumer failed for good: {error.str()}")
        if self._refused_since is None:
            self._refused_since = now
            logger.warning(
                "group.instance.id %s is still taken (UNRELEASED_INSTANCE_ID): by a worker that crashed, until its "
                "session runs out, or by one that runs. It is tried again for %.0f s",
                self._instance,
                PLACE_SECONDS,
            )
        elif now - self._refused_since >= PLACE_SECONDS:
            raise ClientFailed(
                f"group.instance.id {self._instance} is taken by another worker, for {PLACE_SECONDS:.0f} s already "
                "(UNRELEASED_INSTANCE_ID). Give every worker an id of its own in kafka.client, or leave it out."
            )
        self._again_at = now + AGAIN_SECONDS
        self._wait_longer(now)

    @property
    def waiting(self) -> bool:
        """Whether the client is of no use and a new one has to take its place."""
        return self._again_at is not None

    def again(self) -> bool:
        """Whether now is the time for it; said once."""
        if self._again_at is None or self._clock() < self._again_at:
            return False
        self._again_at = None
        return True

    def _wait_longer(self, now: float) -> None:
        if self._join_seconds is not None:
            self._join_by = now + self._join_seconds


def _says(error: KafkaError, code: int) -> bool:
    # A consumer's fatal errors arrive as _FATAL, and the client passes on only the words of their cause.
    return error.code() == code or KafkaError(code).str() in error.str()
