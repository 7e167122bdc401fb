from __future__ import annotations

from typing import TYPE_CHECKING

from certificates import Authority

from consumer.config.tree import Config
from consumer.kafka import runtime

if TYPE_CHECKING:
    from pathlib import Path


def test_files_that_are_just_being_replaced_say_nothing_about_brokers(tmp_path: Path) -> None:
    """A new client cannot be made then: that is no answer, and no fault that ends the worker."""
    ca = tmp_path / "ca.pem"
    security = {"protocol": "ssl", "ca_file": str(ca)}
    passed = {"security.protocol": "ssl", "ssl.ca.location": str(ca)}
    for kafka in ({"security": security}, {"client": passed}):
        config = Config.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1", **kafka}})
        for content in (None, b"", Authority().pem[:-90]):
            ca.unlink(missing_ok=True)
            if content is not None:
                ca.write_bytes(content)
            assert runtime._answers(config) is False
