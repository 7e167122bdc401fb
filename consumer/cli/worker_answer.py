"""The form of a worker's ``/status``, as far as the commands read it.

Anything may answer at an address: a worker of another version, or whatever a member of the group leads to. One answer
of another form must not take the others' report with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Form(BaseModel):
    """Everything may be left out, or null: other versions may not know it."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class _Partition(_Form):
    topic: str
    partition: _Count
    lag: _Count | None = None


class _Rates(_Form):
    events_per_second: _Number | None = None


class _Latency(_Form):
    p95: _Number | None = None


class _Endpoint(_Form):
    address: str | None = None
    state: str | None = None
    reason: str | None = None
    in_flight: _Count | None = None


class _Model(_Form):
    name: str | None = None
    version: str | int | None = None
    endpoints: list[_Endpoint] | None = None


class _Status(_Form):
    worker: str | None = None
    group: str | None = None
    version: str | None = None
    state: str | None = None
    ready: bool | None = None
    reasons: list[str] | None = None
    waiting: dict[str, list[str]] | None = None
    paused: list[str] | None = None
    paused_topics: dict[str, list[str]] | None = None
    assignment: list[_Partition] | None = None
    rates: _Rates | None = None
    latency_ms: _Latency | None = None
    uptime_seconds: _Number | None = None
    model: _Model | None = None


def not_understood(status: Mapping[str, Any]) -> str:
    """The first part of an answer that has another form than this version reads; empty without any."""
    try:
        _Status.model_validate(status)
    except ValidationError as error:
        return ".".join(map(str, error.errors(include_input=False, include_url=False)[0]["loc"]))[:100]
    return ""
