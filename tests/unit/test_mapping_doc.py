"""The recipes of docs/mapping.md give the events that it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.codecs.mapping import FieldMapping, Rows
from consumer.config.layers import gather
from consumer.config.loading import load_config
from consumer.events import SourceRecord

DOC = Path(__file__).parents[2] / "docs/mapping.md"
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
_FIELDS = ("event_id", "text", "product_id", "source", "language", "created_at", "attributes")


def recipes() -> list[tuple[str, str, str]]:
    """Route (YAML), value and event (JSON) of each example."""
    found, route = [], ""
    for part in DOC.read_text("utf-8").split("<!-- example")[1:]:
        blocks = _BLOCK.findall(part)
        if not part.startswith(" of the route before"):
            route = blocks.pop(0)[1]
        found.append((route, blocks[0][1], blocks[1][1]))
    return found


@pytest.mark.parametrize(("route", "value", "event"), recipes())
def test_a_recipe_gives_its_event(route: str, value: str, event: str, tmp_path: Path) -> None:
    """As a worker reads its configuration."""
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"routes": [{"input": "in", "tasks": ["ner"], **yaml.safe_load(route)}]}), "utf-8")
    (loaded,) = load_config(str(file), {}).routes
    record = SourceRecord("in", 0, 7, 1, None, b"", (), None, 0.0)
    found: Any = FieldMapping(loaded).read(json.loads(value), record, "in-0-7")
    if isinstance(found, Rows):
        ((_, found),) = found.events(0, 2)
    read = {name: getattr(found, name) for name in _FIELDS if getattr(found, name) not in (None, {})}
    assert read == json.loads(event)
    assert found.warnings == ()


def test_the_first_example_is_a_configuration(tmp_path: Path) -> None:
    """And all presets have a recipe."""
    file = tmp_path / "r.yaml"
    file.write_text(_BLOCK.findall(DOC.read_text("utf-8"))[0][1], "utf-8")
    load_config(str(file), {})
    assert gather(str(file), {}, ()).problems == []
    used = {yaml.safe_load(route).get("preset") for route, _, _ in recipes()}
    assert used == {None, "debezium", "connect", "cloudevents", "canal", "maxwell"}
