"""``rexstream shadow run``: what makes a command another than the one that began a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from consumer.cli import shadow
from consumer.cli.options import KafkaAccess
from consumer.cli.shadow import asked_for, named_contracts
from consumer.cli.shadow_access import shadow_group
from consumer.config.shadow import shadow_config
from consumer.config.task_files import load_tasks
from consumer.config.tree import Config, ModelConfig
from consumer.kafka.clients import cluster

if TYPE_CHECKING:
    from pathlib import Path

TIMES = "earliest", "now"


@pytest.mark.parametrize(
    ("changes", "contract", "names"),
    [
        ({}, 7, []),
        ({"bundle": "elsewhere"}, 7, []),
        ({"target": "host:1"}, 7, ["model"]),
        ({"name": "other"}, 7, ["model"]),
        ({"version": 3}, 7, ["model"]),
        ({"label": "canary"}, 7, ["model"]),
        ({}, 8, ["model"]),
    ],
)
def test_another_model_is_another_run(changes: dict[str, Any], contract: int, names: list[str]) -> None:
    """Its server, name, version and bundle; the folder of the bundle may be another."""
    config = Config()
    tasks = load_tasks(config.tasks_dirs)
    changed = config.model_copy(update={"model": config.model.model_copy(update=changes)})
    before, after = (
        asked_for(shadow_config(each, ["reviews.raw"], None), tasks, TIMES, [number])
        for each, number in ((config, 7), (changed, contract))
    )
    assert [name for name in before if before[name] != after[name]] == names


def test_a_bundle_that_an_asterisk_finds_makes_no_other_run(tmp_path: Path) -> None:
    """One may come while a run is stopped. A bundle that is named makes one, in whatever folder it lies."""
    for name, contract in (("named", 1), ("again", 1), ("1", 2), ("*", 3)):
        (tmp_path / name / "bundle").mkdir(parents=True)
        (tmp_path / name / "bundle" / "bundle.json").write_text(json.dumps({"contract": contract}))

    def contracts(*further: str, name: str = "named") -> set[int]:
        bundles = tuple(f"{tmp_path}/{each}/bundle" for each in further)
        return named_contracts(ModelConfig(bundle=f"{tmp_path}/{name}/bundle", bundles=bundles))

    assert contracts() == contracts("*") == contracts("again", name="again") == {1}
    assert contracts("1") == contracts("*", "1") == {1, 2}


def test_a_run_has_its_threads_share_their_memory_as_a_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any is started, and so before what is asked for is looked at."""
    shared: list[bool] = []
    monkeypatch.setattr(shadow, "share_arenas", lambda: shared.append(True))
    said = CliRunner().invoke(shadow.command, ["run", "--input", "nothing", "--from", "earliest"])
    assert "nothing is no input of this configuration" in said.output
    assert shared == [True]


def test_the_embedded_broker_is_refused_with_a_way_to_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries it after the demo has nothing else."""
    monkeypatch.setattr(cluster, "is_embedded", lambda *_, **__: True)
    access = KafkaAccess(Config(), "127.0.0.1:9092", {}, 1.0)
    with pytest.raises(click.UsageError, match=r"make kafka PORT=9192.*--bootstrap-servers 127\.0\.0\.1:9192"):
        shadow_group(access, access.config)
