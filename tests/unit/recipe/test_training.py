"""Training itself. Needs PyTorch, which neither the suite nor CI installs: `make train-install`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make train-install has it in .venv-train")

from recipe import checkpoint, validation  # noqa: E402
from recipe.naming import Naming  # noqa: E402
from recipe.network import RexUniNLU, Shape, circle_loss, visible  # noqa: E402
from recipe.rows import DataError, Row, Span  # noqa: E402
from recipe.sources import Sources  # noqa: E402
from recipe.starting import starting_model, vocabulary_for  # noqa: E402
from recipe.training import Settings, Supply, Training, rate_at  # noqa: E402

from consumer.extraction.engine import Engine  # noqa: E402
from consumer.extraction.prompts import PromptLimits  # noqa: E402
from consumer.extraction.task import ExtractionLimits, Task  # noqa: E402
from consumer.model.checkpoint import load_checkpoint  # noqa: E402
from consumer.model.reference import reference_logits  # noqa: E402
from consumer.model.reference import visible as reference_visible  # noqa: E402

if TYPE_CHECKING:
    from random import Random
    from typing import Any

    from recipe.samples import Layout, Sample

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


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_a_shift_raises_every_logit_alike(shift: float) -> None:
    """Over the whole length of a window; shifting once more begins anew."""
    torch.manual_seed(5)
    model = RexUniNLU(Shape(40, 512, 1, 2, 32)).eval()
    ids, positions = torch.randint(0, 40, (1, 40)), (torch.arange(40) * 13)[None]
    segments = torch.zeros_like(ids)
    weights = model.state_dict()

    def logits(shift: float, of: dict[str, Any]) -> Any:
        model.load_state_dict(checkpoint.shifted(of, shift))
        with torch.no_grad():
            return model(ids, positions, segments)

    plain = logits(0.0, weights)
    once = checkpoint.shifted(weights, 1.0)
    for of in (weights, once):
        torch.testing.assert_close(logits(shift, of) - plain, torch.full_like(plain, shift), atol=1e-3, rtol=0)


def test_the_rate_rises_stays_and_falls() -> None:
    """A half cosine down to its floor."""
    raw: dict[str, Any] = dict.fromkeys(Settings.__slots__, 0.0)
    settings = Settings(**{**raw, "learning_rate": 1.0, "warm_up": 0.1, "decay_from": 0.5, "floor": 0.1})
    rates = [rate_at(share / 20, settings) for share in range(21)]
    assert rates[1] == pytest.approx(0.5)
    assert rates[2:11] == pytest.approx([1.0] * 9)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[20] == pytest.approx(0.1)


SETTINGS = Settings(1e-4, 256, 1e-3, 1, 0.1, 0.5, 0.1, 0.0, 0.0, 0.0, 0.9, 1e9, 1e9)


def test_a_resumed_training_draws_new_pools_at_the_rate_of_its_time(tmp_path: Path, layout: Layout) -> None:
    """And what is resumed is the weights, the averaged ones and the time."""

    def one(rng: Random) -> Sample:
        return layout.extraction(f"#屏幕很清晰{rng.random()}", [("", ["属性词"])], [(0, 0, 1, 3)], "one")

    def supply() -> Supply:
        return Supply({"one": one}, {"one": 1.0}, layout, SETTINGS, 7)

    shape = Shape(len(layout.tokenizer._matching.get_vocab()) - 4, **TINY)
    lines: list[str] = []
    handler = signal.getsignal(signal.SIGTERM)
    first = Training(RexUniNLU(shape), SETTINGS, tmp_path / "state.pt", lines.append)
    assert first.run(supply(), lambda: None)
    assert signal.getsignal(signal.SIGTERM) is handler
    again = Training(RexUniNLU(shape), SETTINGS, tmp_path / "state.pt", lines.append)
    assert (again.progress.round, again.progress.step) == (first.progress.round + 1, first.progress.step)
    assert again.progress.seconds == first.progress.seconds > 0
    for name, tensor in first.averaged.items():
        torch.testing.assert_close(again.averaged[name], tensor)
    texts = [{tuple(ids) for ids in next(supply().pool(number)).batch.ids.tolist()} for number in (0, 0, 1)]
    assert texts[0] == texts[1]
    assert not texts[0] & texts[2]
    with pytest.raises(DataError, match=r"another shape or vocabulary.*name another folder"):
        Training(RexUniNLU(Shape(40, **TINY)), SETTINGS, tmp_path / "state.pt", lines.append)


def test_data_whose_samples_are_all_too_long_end_the_training(tmp_path: Path, layout: Layout) -> None:
    """Not a wait of ten minutes for a batch."""
    long = layout.extraction("#" + "好" * 400, [("", ["属性词"])], [], "one")
    supply = Supply({"one": lambda _: long}, {"one": 1.0}, layout, SETTINGS, 7)
    training = Training(RexUniNLU(Shape(3000, **TINY)), SETTINGS, tmp_path / "state.pt", lambda _: None)
    with pytest.raises(DataError, match="each of 1200 samples has more than 300 tokens"):
        training.run(supply, lambda: None)


def test_validation_leaves_out_what_is_missing(layout: Layout) -> None:
    """Sets, categories of a user's own, labels that a careful reader took away."""
    shop = [
        Row("好", fields={"label": 1, "category": "汽车"}),
        Row("差", fields={"label": 0, "category": "手机"}),
        Row("嗯", fields={"category": "手机"}),
    ]
    suite = validation.suite(Sources(shop=shop, rows={"entities": {}}), Naming.read(), layout.tokenizer, 9, 1)
    cases = suite.cases(RexUniNLU(Shape(3000, **TINY)))
    assert {name: len(each) for name, each in cases.items()} == {"sentiment": 2, "category": 1, "category as 书刊 …": 1}
    nothing = validation.suite(Sources(rows={"entities": {}}), Naming.read(), layout.tokenizer, 9, 1)
    assert nothing.figures(RexUniNLU(Shape(3000, **TINY))) == {}


def test_an_owners_classes_are_measured_apart_from_his_facts() -> None:
    """They have another figure."""
    extracted = Row("好", ((Span("词", 0, 1),),), {"词": None})
    classified = Row("好", ((Span("正", 0, 10),),), {"正": None, "负": None}, "classify")
    found = validation.row_questions([extracted, classified, extracted])
    assert {name: len(each) for name, each in found.items()} == {"held out": 2, "held out, classes": 1}


def test_a_checkpoint_brings_its_vocabulary_and_shape(tmp_path: Path, layout: Layout) -> None:
    """In a folder of another training neither would fit, first or resumed."""
    tiny(tmp_path / "start")
    raw: dict[str, Any] = {"shape": {**TINY, "hidden_size": 64}, "seed": 1}
    words = vocabulary_for(tmp_path, tmp_path / "start", raw, Naming.read(), Sources(), tmp_path)
    assert (tmp_path / "vocab.txt").read_text("utf-8").splitlines() == words
    (tmp_path / "state.pt").touch()
    model = starting_model(tmp_path / "start", words, raw, Sources(), layout.tokenizer, tmp_path / "state.pt")
    assert model.shape.hidden_size == TINY["hidden_size"]
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(DataError, match=r"is another vocabulary than that of .*start; name another folder with --work"):
        vocabulary_for(tmp_path, tmp_path / "start", raw, Naming.read(), Sources(), tmp_path)
    (tmp_path / "start/config.json").write_text("{}")
    with pytest.raises(DataError, match=r"start is no checkpoint that this recipe can go on from: .*pos_att_type"):
        checkpoint.load(tmp_path / "start")


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
    held = (out / "held_out.jsonl").read_text("utf-8").splitlines()
    assert f"{len(held)} held out:" in done.stdout
    assert f"--data {out / 'held_out.jsonl'}" in done.stdout
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
