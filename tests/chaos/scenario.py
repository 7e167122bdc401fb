"""What a scenario is, and what came of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.stage import Stage

Mode = Literal["at_least_once", "exactly_once"]
BOTH: tuple[Mode, ...] = ("at_least_once", "exactly_once")


class Failed(Exception):  # noqa: N818 - an outcome of the scenario
    """The scenario cannot go on."""


class Skipped(Exception):  # noqa: N818 - an outcome of the scenario
    """The scenario needs something that this machine does not have; its text says what."""


@dataclass(frozen=True, slots=True)
class Kafka:
    """The cluster that a scenario needs. Scenarios in a row with an equal one share it."""

    brokers: int = 1
    settings: tuple[str, ...] = ()
    """Lines for server.properties."""
    pom: Path | None = None
    """Names another version than the tests' own."""


RULES = Kafka(
    settings=(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found=true",
    )
)
"""Topics may be made read-only."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault with the outcome that it must have, written before it is run."""

    name: str
    fault: str
    expected: str
    """Beside what every scenario must do: nothing missing, nothing that is not owed, equal copies, lag 0 at the end;
    in exactly_once no copy at all, in at_least_once no more than what was in flight at the faults."""
    play: Callable[[Stage], None]
    modes: tuple[Mode, ...] = BOTH
    kafka: Kafka = Kafka()
    prepare: Callable[[], object] | None = None
    """Gets what it needs beside the cluster, before anything runs. Raises Skipped where that cannot be had."""
    on_demand: bool = False
    """Only when named."""


@dataclass(slots=True)
class Report:
    """What came of one scenario in one mode."""

    scenario: str
    mode: str
    fault: str
    expected: str
    inputs: int = 0
    results: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    duplicates: int = 0
    duplicates_allowed: int = 0
    faults: list[str] = field(default_factory=list)
    """What was done, with the seconds since the load began."""
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: str = ""
    """Why it was not run; empty if it was."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.failures
