"""A call of a Kafka client that may never return, on a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class PendingCall:
    """Begins at once. Its thread is a daemon: one that never returns keeps no process, but its client for good."""

    def __init__(self, call: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._call = call
        self._clock = clock
        self._started = clock()
        self._error: BaseException | None = None
        self._returned = threading.Event()
        threading.Thread(target=self._run, name="rexstream-call", daemon=True).start()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._started

    def returned(self, timeout: float) -> bool:
        """Whether it returned, or raised, within the next ``timeout`` seconds."""
        return self._returned.wait(timeout)

    def result(self) -> None:
        """Raises what the call raised. To be asked once it has returned."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # whatever it is, the thread that waits must have it
            self._error = error
        self._returned.set()
