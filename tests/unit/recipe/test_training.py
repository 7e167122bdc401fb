"""Training itself. Needs PyTorch, which neither the suite nor CI installs: `make train-install`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make train-install has it in .venv-train")

from recipe import checkpoint  # noqa: E402
from recipe.network import RexUniNLU, Shape, circle_loss, visible  # noqa: E402
from recipe.training import Settings, rate_at  # noqa: E402

from consumer.extraction.engine import Engine  # noqa: E402
from consumer.extraction.prompts import PromptLimits  # noqa: E402
from consumer.extraction.task import ExtractionLimits, Task  # noqa: E402
from consumer.model.checkpoint import load_checkpoint  # noqa: E402
from consumer.model.reference import reference_logits  # noqa: E402
from consumer.model.reference import visible as reference_visible  # noqa: E402

if TYPE_CHECKING:
    from typing import Any

FOLDER = Path(__file__).parents[3] / "deploy/demo-model"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def tiny(folder: Path) -> RexUniNLU:
    """An untrained model with the shipped tokenizer, written to ``folder``."""
    words = (FOLDER / "vocab.txt").read_text("utf-8").splitlines()
    torch.manual_seed(4)
    model = RexUniNLU(Shape(len(words), **TINY))
    checkpoint.save(model.state_dict(), model.shape, (FOLDER / "tokenizer.json").read_text("utf-8"), words, folder)
    return model


def test_the_network_computes_what_the_reference_does(tmp_path: Path) -> None:
    """A checkpoint that it writes is one that the exporter reads, and the logits of a window agree."""
    tiny(tmp_path)
    model, tokenizer, _ = checkpoint.load(tmp_path)
    task = Task("t", "extract", {"属性词": {"好评": None}, "人物": None}, implicit_aspect="#")
    window = Engine(tokenizer, PromptLimits(), ExtractionLimits()).start("屏幕很清晰", task).windows[0]
    tensors = [torch.from_numpy(each)[None].long() for each in (window.input_ids, window.position_ids, window.segment)]
    with torch.no_grad():
        found = model.eval()(*tensors)[0].numpy()
    np.testing.assert_allclose(found, reference_logits(load_checkpoint(tmp_path), window), atol=1e-4)
    np.testing.assert_array_equal(visible(tensors[2])[0].numpy(), reference_visible(window.segment))


def test_the_loss_is_small_only_where_every_cell_is_on_its_side() -> None:
    """Illegal cells do not count."""
    wanted = torch.tensor([[[True, False], [False, False]]])
    legal = torch.tensor([[[True, True], [True, False]]])
    right = torch.tensor([[[9.0, -9.0], [-9.0, 9.0]]])
    assert circle_loss(right, wanted, legal).item() < 0.01
    assert circle_loss(-right, wanted, legal).item() > 9
    missed = torch.tensor([[[-9.0, -9.0], [-9.0, 0.0]]])
    assert circle_loss(missed, wanted, legal).item() > 8


def test_a_temperature_divides_every_logit() -> None:
    """So no decision at logit 0 changes."""
    torch.manual_seed(2)
    model = RexUniNLU(Shape(40, **TINY)).eval()
    ids, positions = torch.randint(0, 40, (1, 9)), torch.arange(9)[None]
    segments = torch.zeros_like(ids)
    before = model(ids, positions, segments)
    model.load_state_dict(checkpoint.scaled(model.state_dict(), 2.5))
    torch.testing.assert_close(model(ids, positions, segments), before / 2.5)


def test_the_rate_rises_stays_and_falls() -> None:
    """A half cosine down to its floor."""
    raw: dict[str, Any] = dict.fromkeys(Settings.__slots__, 0.0)
    settings = Settings(**{**raw, "learning_rate": 1.0, "warm_up": 0.1, "decay_from": 0.5, "floor": 0.1})
    rates = [rate_at(share / 20, settings) for share in range(21)]
    assert rates[1] == pytest.approx(0.5)
    assert rates[2:11] == pytest.approx([1.0] * 9)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[20] == pytest.approx(0.1)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`train.py` as an owner calls it."""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    return subprocess.run(
        [sys.executable, str(FOLDER / "train.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=170,
    )


def test_an_owner_tunes_a_checkpoint_and_sees_before_and_after(tmp_path: Path) -> None:
    """The one documented command, on tiny weights for a few seconds; interrupted state is gone at the end."""
    tiny(tmp_path / "start")
    data, out = FOLDER.parents[1] / "schemas/samples/product_features.jsonl", tmp_path / "out"
    done = run("tune", "--data", str(data), "--out", str(out), "--from", str(tmp_path / "start"), "--minutes", "0.2")
    assert done.returncode == 0, done.stderr
    assert "held out:" in done.stdout
    assert "(before: 0.000)" in done.stdout
    assert load_checkpoint(out).config.layers == 2
    assert not (out / "state.pt").exists()


def test_the_short_mode_trains_validates_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    """On the written reviews alone: `train.py train --quick`."""
    work = tmp_path / "work"
    first = run("train", "--quick", "--work", str(work), "--minutes", "0.1")
    assert first.returncode == 0, first.stderr
    steps = json.loads((work / "validation.jsonl").read_text("utf-8").splitlines()[-1])["tokens"]
    again = run("train", "--quick", "--work", str(work), "--minutes", "0.2")
    assert again.returncode == 0, again.stderr
    assert "resumed at" in again.stderr
    assert json.loads((work / "validation.jsonl").read_text("utf-8").splitlines()[-1])["tokens"] > steps
    assert load_checkpoint(work / "last").config.layers == 1
