"""The error that ends a worker because one of its Kafka clients is of no use any more."""

from __future__ import annotations


class ClientFailed(RuntimeError):  # noqa: N818 - named for what it is
    """A client was fenced, or failed for good. A successor reads again what is not committed, so nothing is lost."""
