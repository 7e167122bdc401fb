"""What ``rexstream check --connect`` finds at a model server that several bundles and a canary are configured for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from stub_server import StubServer, write_bundle
from two_tokenizers import ANOTHER_TOKENIZER

from consumer.cli.model_findings import model_findings
from consumer.config.canary import CanaryConfig
from consumer.config.tree import Config, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from consumer.cli.dependencies import Finding


@pytest.fixture
def server() -> Iterator[StubServer]:
    """Version 2 has another tokenizer. It does not tell signatures, as some versions of the real server."""
    running = StubServer()
    running.tokenizers[2] = ANOTHER_TOKENIZER
    running.labels |= {"stable": 2, "canary": 1}
    yield running
    running.stop()


def found(server: StubServer, tmp_path: Path, **model: Any) -> list[Finding]:
    one = str(write_bundle(tmp_path / "one"))
    two = str(write_bundle(tmp_path / "two", ANOTHER_TOKENIZER))
    its = {"target": server.target, "name": "stub", "label": "stable", "bundle": one, "bundles": (two,), **model}
    return list(model_findings(Config(model=ModelConfig(**its))))


def test_one_bundle_that_fits_is_enough_and_is_named(server: StubServer, tmp_path: Path) -> None:
    """For the stable version and for the canary, each with its own."""
    findings = found(server, tmp_path, canary=CanaryConfig(label="canary", share=0.1))
    assert [each for each in findings if each.status != "ok"] == []
    named = {each.subject: each.detail for each in findings if each.subject.endswith("model bundle")}
    assert "/two " in named["model bundle"]
    assert "/one " in named["canary: model bundle"]


def test_a_canary_that_is_not_there_is_a_warning(server: StubServer, tmp_path: Path) -> None:
    """The worker starts, and answers all events with the stable version."""
    del server.labels["canary"]
    findings = found(server, tmp_path, canary=CanaryConfig(label="canary", share=0.1))
    (warned,) = [each for each in findings if each.status != "ok"]
    assert (warned.subject, warned.status) == ("canary: model answers", "warn")
    assert "Unrecognized servable version label" in warned.detail


def test_a_canary_without_a_bundle_needs_one_beside_that_of_the_stable_version(
    server: StubServer, tmp_path: Path
) -> None:
    """Another ``model.bundle``, as where there is no canary, would be the wrong one for the stable version."""
    server.labels |= {"stable": 1, "canary": 2}
    findings = found(server, tmp_path, bundles=(), canary=CanaryConfig(label="canary", share=0.1))
    (warned,) = [each for each in findings if each.status != "ok"]
    assert "add to model.bundles the bundle folder beside the served version" in warned.detail
    assert "point model.bundle" not in warned.detail


def test_a_bundle_that_is_half_copied_keeps_no_other_from_fitting(server: StubServer, tmp_path: Path) -> None:
    """An asterisk found it."""
    half = write_bundle(tmp_path / "half", ANOTHER_TOKENIZER)
    (half / "tokenizer.json").unlink()
    findings = found(server, tmp_path, bundles=(str(tmp_path / "*"),))
    assert [each for each in findings if each.status != "ok"] == []
    assert any("/two " in each.detail for each in findings if each.subject == "model bundle")


def test_where_no_bundle_fits_each_is_named(server: StubServer, tmp_path: Path) -> None:
    """With what is wrong with it."""
    server.tokenizers[2] = ANOTHER_TOKENIZER.replace(b"[more1]", b"[more9]")
    failed = [each.detail for each in found(server, tmp_path) if each.status == "fail"]
    assert [name for name in ("/one ", "/two ") if any(name in each for each in failed)] == ["/one ", "/two "]
