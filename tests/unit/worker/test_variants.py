"""The ways to the model that a configuration gives a worker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER, another_tokenizer

from consumer.batching.policy import CallCost
from consumer.batching.queue import EventShare
from consumer.config.credential_files import CredentialFileError
from consumer.config.loading import load_config
from consumer.serving.bundle import load_bundle
from consumer.serving.refused import State
from consumer.telemetry.metrics import Metrics
from consumer.worker.parts import parts_of
from consumer.worker.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from consumer.config.tree import ModelConfig
    from consumer.serving.bundle import Bundle

LATER = ("model.bundle=/models/1/bundle", "model.bundles=[/models/*/bundle]")
"""Another bundle may come."""
CANARY = ("model.label=stable", "model.canary.label=canary")


@pytest.mark.parametrize(
    ("overrides", "bundles", "ways"),
    [
        ((), 1, ["stable"]),
        (LATER, 1, ["stable"]),
        ((), 2, ["stable", "stable"]),
        (CANARY, 1, ["stable", "canary"]),
        (CANARY, 2, ["stable", "stable", "canary", "canary"]),
    ],
)
def test_one_bundle_and_no_canary_is_the_runner_itself(
    tmp_path: Path, overrides: tuple[str, ...], bundles: int, ways: list[str]
) -> None:
    """No call, task or await more for an event; else each bundle is a way to each version."""
    tokenizers = [{}, {"tokenizer_json": ANOTHER_TOKENIZER}][:bundles]
    found = [load_bundle(write_bundle(tmp_path / str(at), **each)) for at, each in enumerate(tokenizers)]

    async def main() -> None:
        config = load_config(None, {}, ["model.target=127.0.0.1:9", *overrides])
        variants = Variants(config, found, parts_of(config, "w"), Metrics(), lambda *_: None)
        infer = variants.infer({}, 100, lambda cost: EventShare(100, 1.0, cost.seconds(1, 512)), lambda: None)
        assert [each.name for each in variants.all] == ways
        is_only = len(ways) == 1 and overrides is not LATER
        assert (infer == variants.all[0].runner.infer) == is_only
        assert (variants.router is None) == is_only
        await variants.close()

    asyncio.run(main())


def test_a_worker_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """Of several ways to the model, and of transactions: what they cost is theirs."""
    write_bundle(tmp_path)
    several = ("variant_", "canary_evidence", "bundle_watch", "config_watch", "resilience.canary", "suspected")
    off = (*several, "exactly_once", "transaction")
    program = (
        "import asyncio, sys\n"
        "import consumer.cli.run, consumer.worker.lifecycle\n"
        "from consumer.config.loading import load_config\n"
        "from consumer.telemetry.metrics import Metrics\n"
        "from consumer.worker.parts import parts_of\n"
        "from consumer.worker.start_checks import StartChecks\n"
        "from consumer.worker.variants import Variants\n"
        f"config = load_config(None, {{}}, ['model.target=127.0.0.1:9', 'model.bundle={tmp_path}'])\n"
        "bundles = StartChecks(config).bundles\n"
        "async def main():\n"
        "    await Variants(config, bundles, parts_of(config, 'w'), Metrics(), lambda *_: None).close()\n"
        "asyncio.run(main())\n"
        f"ours = [each for each in sys.modules if 'consumer.' in each and any(name in each for name in {off})]\n"
        "sys.exit(', '.join(ours) or 'glob' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_bundle_is_added_to_a_running_worker_for_each_version(tmp_path: Path) -> None:
    """Where one may come, there is a router from the start. It expects the costs and has the limits of the others."""
    first = load_bundle(write_bundle(tmp_path / "1"))
    second = load_bundle(write_bundle(tmp_path / "2", ANOTHER_TOKENIZER))
    cost = CallCost(0.0, 0.5, 1e-5, 0.0)
    third = load_bundle(write_bundle(tmp_path / "3", another_tokenizer(3)))
    started: list[Coroutine[Any, Any, None]] = []
    states: list[State] = []

    async def main() -> None:
        overrides = ["model.target=127.0.0.1:9", *CANARY, f"model.bundle={tmp_path}/1", f"model.bundles=[{tmp_path}/*]"]
        config = load_config(None, {}, overrides)
        variants = Variants(config, [first], parts_of(config, "w"), Metrics(), lambda state, _: states.append(state))
        variants.follow(started.append)
        variants.costs(cost)
        variants.infer({}, 100, lambda cost: EventShare(100, 1.0, cost.seconds(1, 512)), lambda: None)
        before = len(started)
        variants.add(second)
        assert [(each.name, each.bundle) for each in variants.all] == [
            ("stable", first),
            ("canary", first),
            ("stable", second),
            ("canary", second),
        ]
        assert {each.policy.cost for each in variants.all} == {cost}
        assert all(each.runner for each in variants.all)
        assert len(started) == before + 4  # addresses and pump of each
        assert variants.router is not None
        status = variants.router.status()
        assert [each["usable"] for each in status["variants"]][2:] == [False, False]
        assert states == []
        for each in variants.all:
            each.unusable, each.dispatcher.state = "another contract", State.DEPLOYMENT_FAULT
        variants.look()
        variants.add(third)
        assert states == [State.DEPLOYMENT_FAULT]  # a bundle that has shown nothing yet ends no pause
        await variants.close()
        for work in started:
            work.close()

    asyncio.run(main())


def test_a_bundle_that_cannot_be_added_leaves_everything_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of ``model.tls`` may be exchanged at that moment."""
    first = load_bundle(write_bundle(tmp_path / "1"))

    def connect(model: ModelConfig, bundle: Bundle) -> None:  # noqa: ARG001
        if model.label == "canary":
            raise CredentialFileError("ca.pem is empty")

    async def main() -> None:
        config = load_config(None, {}, ["model.target=127.0.0.1:9", *CANARY])
        variants = Variants(config, [first], parts_of(config, "w"), Metrics(), lambda *_: None)
        before = list(variants.all)
        monkeypatch.setattr("consumer.worker.variants.ModelServers", connect)
        with pytest.raises(CredentialFileError):
            variants.add(first)
        assert variants.all == before
        await variants.close()

    asyncio.run(main())
