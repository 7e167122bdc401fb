"""What one run of the simulator gives."""

from __future__ import annotations

import math
from typing import NamedTuple


class Outcome(NamedTuple):
    """What one run gave. Latencies are from an event's arrival to the answer of its last window, in seconds."""

    latencies: tuple[float, ...]
    """Of ordinary events, in order of completion."""
    large_latencies: tuple[float, ...]
    """Of the others."""
    seconds: float
    """From the first arrival to the last answer."""
    windows: int
    """Windows that were answered."""
    calls: int
    useful_tokens: int
    padded_tokens: int

    def percentile(self, share: float) -> float:
        """The smallest latency of ordinary events that this share of them does not exceed."""
        ordered = sorted(self.latencies)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def throughput(self) -> float:
        """Events a second."""
        return (len(self.latencies) + len(self.large_latencies)) / self.seconds

    @property
    def padding(self) -> float:
        """Share of the tokens sent that was padding."""
        return 1 - self.useful_tokens / self.padded_tokens
