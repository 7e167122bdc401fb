"""Exit codes of the ``rexstream`` command, and what each means for whoever supervises it.

A module of its own at the top: the worker decides on its own code and may import nothing of ``consumer.cli``, and
``consumer.config`` names the code of a bad configuration.
"""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
"""The work is done; a worker has drained and committed. Nothing to do."""

EXIT_FAILED: Final = 1
"""Work failed or was left over: read the log, then start again. A worker's successor reads again what was left."""

EXIT_USAGE: Final = 2
"""Bad usage or configuration: starting again changes nothing until a person has mended it."""

EXIT_UNREACHABLE: Final = 3
"""A dependency does not answer or lacks what is needed: start again once it is there."""

EXIT_FENCED: Final = 4
"""Kafka has fenced this process, or its client failed for good: start again at once."""

EXIT_CREDENTIALS: Final = 5
"""Files of Kafka's certificates, keys or passwords have changed, and the worker has drained: start again at once."""

EXIT_INTERRUPTED: Final = 130
"""Ctrl-C, or a second signal that cut a worker's drain short; what shells report for SIGINT (128 + 2)."""
