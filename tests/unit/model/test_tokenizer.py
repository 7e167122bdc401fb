"""A checkpoint's tokenizer files become one tokenizer.json with the markers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from consumer.extraction.prompts import MARKERS, PromptTokenizer
from consumer.model.encoder_config import CheckpointError, read_config
from consumer.model.tokenizer import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model

TEXT = "味道不错，Ｗi-Fi 也快。[SEP][TYPE]"


def copy(source: Path, target: Path, *names: str) -> Path:
    target.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(source / name, target)
    return target


def test_the_markers_get_the_ids_behind_the_vocabulary(demo_model: Path) -> None:
    """vocab_size .. vocab_size + 3, in the reference's order."""
    config = read_config(demo_model)
    tokenizer = read_bundle(demo_model, config).tokenizer
    ids = [tokenizer.prefix, tokenizer.type, tokenizer.classify, tokenizer.multiclassify]
    assert ids == list(range(config.vocab_size, config.vocab_size + 4))
    assert tokenizer.ids("".join(MARKERS), special=True) == tuple(ids)


def test_a_vocabulary_alone_is_enough(demo_model: Path, tmp_path: Path) -> None:
    """vocab.txt and tokenizer_config.json make the same tokenizer as the folder with tokenizer.json."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    config = read_config(folder)
    whole, bare = read_bundle(demo_model, config).tokenizer, read_bundle(folder, config).tokenizer
    for special in (False, True):
        one, other = (tokenizer.encode(TEXT, special=special) for tokenizer in (bare, whole))
        assert one.offsets.tolist() == other.offsets.tolist()
        assert bare.ids(TEXT, special=special) == whole.ids(TEXT, special=special)


def test_the_flags_of_the_tokenizer_configuration_count(demo_model: Path, tmp_path: Path) -> None:
    """Lower-casing is what tokenizer_config.json says, not a habit of ours."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    config = read_config(folder)
    lowered, kept = read_bundle(demo_model, config).tokenizer, read_bundle(folder, config).tokenizer
    assert lowered.ids("A") == lowered.ids("a") == kept.ids("a")
    assert kept.ids("A") != kept.ids("a")


def test_the_contract_is_that_of_the_stored_file(demo_model: Path) -> None:
    """A folder's own tokenizer.json decides the contract, not how a release of transformers would write it."""
    from consumer.extraction.prompts import PromptLimits, contract_hash, with_markers

    stored = with_markers((demo_model / "tokenizer.json").read_bytes())
    bundle = read_bundle(demo_model, read_config(demo_model))
    assert bundle.contract == contract_hash(stored, PromptLimits())
    assert bundle.tokenizer.json == stored


def test_stored_truncation_is_not_taken_over(demo_model: Path, tmp_path: Path) -> None:
    """Windows are the engine's business: a tokenizer.json that truncates must not cut a text short."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    stored = json.loads((demo_model / "tokenizer.json").read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    tokenizer = PromptTokenizer(read_bundle(folder, read_config(folder)).tokenizer.json)
    assert len(tokenizer.ids("这家店的包装很用心")) == 9


def test_a_tokenizer_of_another_model_is_refused(demo_model: Path, tmp_path: Path) -> None:
    """When the markers would not get the ids behind vocab_size, both numbers are in the error."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    words = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(words[:-5]) + "\n")
    config = read_config(folder)
    size = config.vocab_size
    with pytest.raises(CheckpointError, match=rf"ends at id {size - 6}, but config\.json has vocab_size {size}"):
        read_bundle(folder, config)


def test_ids_without_an_embedding_are_refused(demo_model: Path, tmp_path: Path) -> None:
    """Stored markers stay where they are, but every id needs a row in the word embedding."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    with (folder / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("".join(f"{marker}\n" for marker in MARKERS) + "多\n")
    config = read_config(folder)
    beyond = config.vocab_size + len(MARKERS)
    with pytest.raises(CheckpointError, match=f"highest id is {beyond}, the word embedding ends at {beyond - 1}"):
        read_bundle(folder, config)


def test_no_tokenizer_files(micro: Any, tmp_path: Path) -> None:
    """The error names the folder and the files that would do."""
    folder = micro.write(tmp_path / "bare")
    with pytest.raises(CheckpointError, match=r"bare: there is no tokenizer; expected tokenizer\.json, or vocab\.txt"):
        read_bundle(folder, read_config(folder))


def test_absolute_positions_must_reach_a_whole_window(demo_model: Path, tmp_path: Path) -> None:
    """A model with fewer absolute positions than a window has tokens would fail in the middle of the day."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    fields = json.loads((folder / "config.json").read_text())
    changed = {**fields, "position_biased_input": True, "max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="max_position_embeddings is 256; supported: at least 512"):
        read_bundle(folder, read_config(folder))


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_a_git_lfs_pointer_is_called_that(demo_model: Path, tmp_path: Path, name: str) -> None:
    """A vocabulary of three words would be taken for the tokenizer."""
    folder = copy(demo_model, tmp_path, "vocab.txt", "tokenizer_config.json", "config.json")
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        CheckpointError, match=rf"{name} is a Git LFS pointer of 63 bytes, not the file; run git lfs pull"
    ):
        read_bundle(folder, read_config(folder))
