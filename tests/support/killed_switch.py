"""A ``rexstream shadow switch`` that is killed, and what is compared of the records that it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from confluent_kafka import Message

    from consumer.events import Header

KILLED_IN_ITS_SECOND_TRANSACTION = """
import os, signal
from consumer.kafka.tools.transactions import Transactions

calls, patiently = [], Transactions._patiently

def counted(self, call):
    calls.append(call)  # init; offsets and commit of each transaction
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    patiently(self, call)

Transactions._patiently = counted
from consumer.cli import main
main()
"""
"""A program in place of ``rexstream``, with its arguments: all but the commit of that transaction is done."""


def content(message: Message) -> tuple[int, bytes, bytes, tuple[Header, ...]]:
    """All but the offset and the time."""
    return message.partition() or 0, message.key() or b"", message.value() or b"", headers_of(message)
