"""What every section of the configuration tree is made of: its base class, and the types of plain keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from consumer.config.problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
# At most a year: what counts in nanoseconds or milliseconds, and timers of the system take no more than 292 years.
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the tree: no key that is not named here, and no silent conversion of one kind of value to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What ``repr`` and ``str`` show, and with them any traceback or log line: secrets hidden."""
        for name, value in super().__repr_args__():
            yield name, value if name is None else shown((name,), value)
