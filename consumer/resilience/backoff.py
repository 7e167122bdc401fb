"""Pauses between tries of a server that fails. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling from ``first`` to ``limit`` seconds, with full jitter: workers that failed together come back apart."""

    first: float = 0.1
    limit: float = 10.0
    uniform: Callable[[float, float], float] = random.uniform

    def pause(self, failures: int) -> float:
        """Seconds to wait after ``failures`` earlier failures in a row: anything from none up to the doubled time."""
        return self.uniform(0.0, min(self.limit, self.first * 2 ** min(failures, 20)))
