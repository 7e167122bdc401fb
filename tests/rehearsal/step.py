"""One step of a rehearsal, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.audit import Audit


class Span(NamedTuple):
    """From and to, in seconds of the Unix clock, as Prometheus counts."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


NEVER = Span(0.0, 0.0)


class Promise(NamedTuple):
    """What must hold, and whether it did."""

    holds: bool
    words: str


@dataclass(slots=True)
class Step:
    """Under load: some calm seconds before, the step until all that it held up is done, calm seconds after."""

    name: str
    what: str
    must: frozenset[str] = frozenset()
    """Alerts of the fast clock that must fire in it."""
    may: Mapping[str, str] = field(default_factory=dict)
    """Alerts of the fast clock that may, and why that is right."""
    before: Span = NEVER
    during: Span = NEVER
    after: Span = NEVER
    to_recover: float | None = None
    """Seconds from its begin until the lag was again what it usually is; None when it never was."""
    log: list[str] = field(default_factory=list)
    """What was done, with the seconds since its begin."""
    promises: list[Promise] = field(default_factory=list)
    of_audit: list[Callable[[Mapping[str, Audit]], Promise]] = field(default_factory=list)
    """Promises that only the audits of the inputs can judge."""
