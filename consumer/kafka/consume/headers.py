"""The headers of a polled message, of which the client may be unable to give any."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from confluent_kafka import Message

    from consumer.events import Header

_call = operator.methodcaller("headers")


def readable_headers(message: Message) -> tuple[Header, ...] | None:
    """The headers as they came; None when a name is not UTF-8. Ask a message once only.

    The client decodes names as UTF-8, and where one is not it returns a list together with an exception. Python looks
    for that after a general call and raises SystemError, but not after a method call in a loop that it has optimised:
    there the exception would come up anywhere later. A call through ``operator`` is never optimised.
    """
    try:
        headers = _call(message)
    except (SystemError, UnicodeDecodeError):
        return None
    # The library's annotation also allows what it only accepts on the way in.
    return tuple(cast("list[Header]", headers or []))
