"""``docs/configuration.md`` says what the tree says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from house.configuration_doc import FILE, descriptions, document

from consumer.config.loading import load
from consumer.config.tree import KEYS, is_section

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.config.section import Section

TEXT = FILE.read_text("utf-8")
SECTIONS = {path: key.type for path, key in KEYS.items() if is_section(key.type)}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_document_is_current() -> None:
    """Change the tree, run ``make docs``."""
    assert document() == TEXT


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: section.__name__)
def test_every_key_is_described(section: type[Section]) -> None:
    """A sentence below each key; sections are described by their class."""
    assert section.__doc__
    for name, text in descriptions(section).items():
        child = KEYS.get(next((*path, name) for path, kind in SECTIONS.items() if kind is section))
        inner = child is not None and (is_section(child.type) or name == "routes")
        assert inner or text.rstrip().endswith((".", ")")), name


def test_the_examples_are_valid(tmp_path: Path) -> None:
    """Each of them loads as it stands, without a warning."""
    assert len(EXAMPLES) == 3
    for number, example in enumerate(EXAMPLES):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example, "utf-8")
        assert load(str(path), {}).warnings == ()


def test_every_key_is_there_once_with_its_variable() -> None:
    """Nothing is left out."""
    for path, key in KEYS.items():
        if not is_section(key.type) and path != ("routes",) and isinstance(path[-1], str):
            variable = "REXSTREAM_" + "__".join(str(part).upper() for part in path)
            assert TEXT.count(f"**`{'.'.join(map(str, path))}`**") == 1
            assert f"`{variable}`" in TEXT or f"`{variable}__…`" in TEXT
