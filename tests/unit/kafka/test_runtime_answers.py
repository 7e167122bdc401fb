from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority

from consumer.config.tree import Config
from consumer.kafka import runtime
from consumer.local.broker import EmbeddedBroker

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


@pytest.mark.broker
def test_brokers_that_nobody_reaches_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said at the configured address: a client that is stuck is to be told from one that has nobody."""
    monkeypatch.setattr(runtime, "OTHERS_SECONDS", 2.0)
    with EmbeddedBroker(brokers=2) as broker:
        config = Config.model_validate({"kafka": {"bootstrap_servers": broker.bootstrap_servers.split(",")[0]}})
        broker.advertise(2, "127.0.0.1", 1)
        assert runtime._answers(config) is True
        broker.advertise(1, "127.0.0.1", 1)
        monkeypatch.setattr(runtime, "OTHERS_SECONDS", 0.5)
        assert runtime._answers(config) is False
