"""Calls that nobody waits for any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from consumer.local.model_server import _handler
from consumer.serving.descriptors import PREDICT


@pytest.mark.parametrize(("active", "asked"), [(True, 1), (False, 0)])
def test_a_call_whose_deadline_passed_in_the_queue_is_not_run(active: bool, asked: int) -> None:
    """A call that waited for its turn longer than its caller did costs no model run."""
    seen: list[Any] = []

    def answer(request: Any, _: Any) -> Any:
        seen.append(request)
        return PREDICT.response()

    handler = _handler(PREDICT, answer)
    handler.unary_unary(PREDICT.request(), SimpleNamespace(is_active=lambda: active))
    assert len(seen) == asked
