from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.events import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.events import Header


@pytest.fixture
def make_record() -> Callable[..., SourceRecord]:
    def make(value: bytes | None = b"{}", *headers: Header, topic: str = "reviews.raw") -> SourceRecord:
        return SourceRecord(
            topic=topic,
            partition=3,
            offset=41,
            epoch=1,
            key=b"k",
            value=value,
            headers=headers,
            timestamp_ms=1_700_000_000_000,
            fetched_at=5.0,
        )

    return make
