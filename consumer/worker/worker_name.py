"""The name by which logs and /status tell workers apart."""

from __future__ import annotations

import os
import socket


def worker_name() -> str:
    """Unique among the live workers of a group: host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"
