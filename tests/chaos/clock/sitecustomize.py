"""Shifts the wall clock of a Python process while it runs; imported by the interpreter's ``site`` when on PYTHONPATH.

``$CHAOS_CLOCK_OFFSET`` names a file of one native double, the seconds to add. It is mapped, so whoever writes the file
moves the clock at once. What moves is ``time.time`` and ``time.time_ns``, all that a worker asks for the time of day;
the monotonic clock stays, as it does when a real clock is set. Clocks inside C libraries (librdkafka's record
timestamps, ``datetime.now``) are not moved. gRPC computes deadlines in Python and compares them in C: to it both halves
must show the same time, as they do on a machine, so its Python half gets the true one.
"""

import mmap
import os
import struct
import sys
import time

if _path := os.environ.get("CHAOS_CLOCK_OFFSET"):
    with open(_path, "r+b") as _file:
        _mapped = mmap.mmap(_file.fileno(), 8)
    _time, _time_ns = time.time, time.time_ns

    def _offset() -> float:
        if str(sys._getframe(2).f_globals.get("__name__")).startswith("grpc."):
            return 0.0
        offset: float = struct.unpack("d", _mapped)[0]
        return offset

    def _shifted() -> float:
        return _time() + _offset()

    def _shifted_ns() -> int:
        return _time_ns() + int(_offset() * 1e9)

    time.time, time.time_ns = _shifted, _shifted_ns
