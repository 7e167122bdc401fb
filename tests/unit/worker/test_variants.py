"""The ways to the model that a configuration gives a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from stub_server import write_bundle
from two_tokenizers import ANOTHER_TOKENIZER

from consumer.batching.queue import EventShare
from consumer.config.loading import load_config
from consumer.serving.bundle import load_bundle
from consumer.telemetry.metrics import Metrics
from consumer.worker.parts import parts_of
from consumer.worker.variants import Variants

if TYPE_CHECKING:
    from pathlib import Path

CANARY = ("model.label=stable", "model.canary.label=canary")


@pytest.mark.parametrize(
    ("overrides", "bundles", "ways"),
    [((), 1, ["stable"]), (CANARY, 1, ["stable", "canary"]), (CANARY, 2, ["stable", "stable", "canary", "canary"])],
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
        assert (infer == variants.all[0].runner.infer) == (len(ways) == 1)
        assert (variants.router is None) == (len(ways) == 1)
        await variants.close()

    asyncio.run(main())
