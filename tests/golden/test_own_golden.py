"""The project's own golden fixtures. make_own.py says how they were made and why each output is what it is."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cells import cells_of

from consumer.extraction.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.extraction.engine import Engine

HERE = Path(__file__).resolve().parent / "own"


def cases(name: str) -> list[Any]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [pytest.param(case, id=case["id"]) for case in map(json.loads, lines)]


def test_fixtures_are_what_their_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody edited a fixture by hand."""
    monkeypatch.syspath_prepend(HERE)
    fixtures = runpy.run_path(str(HERE / "make_own.py"))["fixtures"]
    for name, content in fixtures().items():
        assert (HERE / name).read_text(encoding="utf-8") == content


@pytest.mark.parametrize("case", [*cases("own_extract.jsonl"), *cases("own_classify.jsonl")])
def test_own_golden(case: dict[str, Any], own_engine: Engine, expand: Callable[[list[list[int]]], list[int]]) -> None:
    """Every window has the ids, positions and segments of the slow way, and the facts are those written by hand."""
    described = dict(case["task"])
    legal = described.pop("legal_paths", None)
    task = Task(name="golden", **described, legal_paths=frozenset(map(tuple, legal)) if legal else None)
    extraction = own_engine.start(case["text"], task)
    calls = iter(case["calls"])
    while not extraction.finished:
        answers = []
        for window in extraction.windows:
            call = next(calls)
            assert call["level"] == extraction.level, call["hint"]
            assert window.input_ids.tolist() == call["input_ids"], call["hint"]
            assert window.position_ids.tolist() == call["position_ids"], call["hint"]
            assert window.segment.tolist() == expand(call["segments"]), call["hint"]
            assert window.text_start == call["text_start"], call["hint"]
            answers.append(cells_of({(row, column): logit for row, column, logit in call["cells"]}))
        extraction.advance(answers)
    assert next(calls, None) is None
    result = extraction.result()
    assert result.model_calls == len(case["calls"])
    if described["kind"] == "extract":
        found = [[[fact.type, fact.span, fact.start, fact.end, fact.score] for fact in path] for path in result.paths]
    else:
        assert all((fact.span, fact.start, fact.end) == (None, None, None) for path in result.paths for fact in path)
        found = [[[fact.type, fact.score] for fact in path] for path in result.paths]
    assert found == case["expected"]
    assert [warning.split(":")[0] for warning in result.warnings] == case["warnings"]
