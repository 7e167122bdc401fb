"""A helper process that ends when the process that started it ends, however that ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
"""Time the process has for its own clean end before it is ended without one."""

_PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """Send this process SIGTERM once its parent is gone, and end it hard ``STOP_SECONDS`` later.

    Call it first thing, before slow imports: a parent that died earlier is not noticed. On Linux the kernel sends the
    signal at once, even while Python cannot run; it does so when the *thread* that started this process ends, so start
    such helpers from a thread that lives as long as they should. Everywhere else (and where the kernel refuses) a
    daemon thread looks every ``POLL_SECONDS``.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
