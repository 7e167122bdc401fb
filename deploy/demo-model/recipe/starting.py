"""What a training starts from: a vocabulary, and weights of a published model, of a checkpoint, or none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from recipe import checkpoint
from recipe.measuring import PROJECT
from recipe.network import RexUniNLU, Shape
from recipe.rows import DataError
from recipe.sources import texts_of, types_of
from recipe.starting_weights import started
from recipe.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from consumer.extraction.prompts import PromptTokenizer
    from recipe.naming import Naming
    from recipe.sources import Sources

_PROBES: Final = 400
"""Texts on which the units of published weights are judged."""
_PROBED: Final = 120
"""Tokens of each."""


def vocabulary_for(
    work: Path, start: Path | None, config: dict[str, Any], naming: Naming, sources: Sources, data: Path
) -> list[str]:
    """That of the checkpoint to start from, that of ``work``, or a new one; kept in ``work``. Raises DataError."""
    file = work / "vocab.txt"
    if start is not None and start.is_dir():
        vocabulary = checkpoint.load(start)[2]
        if file.is_file() and file.read_text("utf-8").splitlines() != vocabulary:
            raise DataError(f"{file} is another vocabulary than that of {start}; name another folder with --work")
    elif file.is_file():
        vocabulary = file.read_text("utf-8").splitlines()
    else:
        types = "".join(sorted(types_of(sources)))
        files = [*sorted((PROJECT / "schemas/tasks").glob("*.yaml")), Path(__file__).parent / "templates.yaml"]
        written = "".join(row.text for row in sources.written)
        required = naming.characters() + types + "".join(path.read_text("utf-8") for path in files) + written
        vocabulary = vocabulary_of(texts_of(sources, config, data), required, config["vocabulary"])
    file.write_text("\n".join(vocabulary) + "\n", "utf-8")
    return vocabulary


def starting_model(
    start: Path | None,
    vocabulary: list[str],
    config: dict[str, Any],
    sources: Sources,
    tokenizer: PromptTokenizer,
    state: Path,
) -> RexUniNLU:
    """A model to train; where ``state`` will be loaded into it, only its shape counts. Raises DataError."""
    if start is not None and start.is_dir():
        return checkpoint.load(start)[0]
    shape = Shape(len(vocabulary), **config["shape"])
    if state.is_file() or start is None:
        torch.manual_seed(config["seed"])
        return RexUniNLU(shape)
    probes = random.Random(config["seed"]).sample(sources.shop, min(_PROBES, len(sources.shop)))
    ids = [[tokenizer.cls, *tokenizer.ids(row.text)[:_PROBED], tokenizer.sep] for row in probes]
    return started(start, vocabulary, shape, ids, config["seed"])
