"""Which windows leave an endpoint that is out, and who gets them. Called only while one of several endpoints is out.

What is suspected of nothing goes back to the common queue. What broke off there may have ended that server, and would
end the next one: it waits until the server is back. A server that never comes back must not hold it for ever, so after
``HELD_SECONDS``, or ``HELD_AGAIN_SECONDS``, it is tried on one other endpoint, isolated. What then broke off at two
waits until one of them is back, however long that takes. So one window ends two servers at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from consumer.serving.dispatch.endpoint import BUSY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection

    from consumer.serving.dispatch.batch import Entry
    from consumer.serving.dispatch.endpoint import Endpoint

HELD_SECONDS = 60.0
"""A server that crashed is back sooner: 10 s until its container is started again the first time, some 20 s to start
and load the model, 3 s until the worker notices. Its address says nothing: that of a pod that crashed vanishes from a
headless service and comes back with it."""

HELD_AGAIN_SECONDS = 600.0
"""The same for windows whose calls broke off there more than once: a container that crashes again and again is started
after 300 s at most. A server that ends in every call, and never comes back to show it, must not hold them for ever."""


class Transfer(NamedTuple):
    """Windows for whichever endpoint comes first, and when to look again (None: when something happens)."""

    entries: list[Entry]
    again_at: float | None


def transfer(endpoints: Collection[Endpoint], now: float) -> Transfer:
    """Take what may leave out of the endpoints that are out; what is suspected goes to its new endpoint at once."""
    usable = [endpoint for endpoint in endpoints if endpoint.usable]
    entries: list[Entry] = []
    times: list[float] = []
    for endpoint in endpoints if usable else ():
        if not endpoint.out:
            if endpoint.recovery.fault is not None:
                times.append(endpoint.recovery.began + BUSY_SECONDS)
            continue
        entries += endpoint.recovery.take_unsuspected()
        for group in [group for group in endpoint.retries if not group.suspected]:
            endpoint.retries.remove(group)
            endpoint.review.leave(group)
            entries += group.entries
        for group, take in endpoint.suspects().items():
            to = [other for other in usable if other.address in group.broke_at]
            # At one; or at none, since a call of an isolated one failed otherwise after it had broken off.
            if not to and len(group.broke_at) <= 1:
                seconds = HELD_SECONDS if group.crash.broken <= 1 else HELD_AGAIN_SECONDS
                # Its call may have broken off long after the fault began: a server that rejects all may end in a probe.
                until = max(endpoint.recovery.began, group.broke_off_at) + seconds
                to = usable if until <= now else []
                times.append(until)
            if to:
                take(group)
                # The one with the fewest suspects: one server should not be risked for all of them.
                min(to, key=lambda other: other.isolation.waiting).isolation.add(group.anew(group.entries), 0.0)
    return Transfer(entries, min((at for at in times if at > now), default=None))
