"""CPU microseconds that the engine of one checkout takes for an event: what worker and loop share.

    engine_run.py TOKENIZER_JSON REVIEWS TASK,TASK ROUNDS

``PYTHONPATH`` says which checkout; modules of older ones have other names. Answers are made beforehand, one fact a
window. Printed is the least of the rounds over all reviews: tokenise, lay windows out, read cells, make the result.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def found(name: str, *modules: str) -> Any:
    """What is called so in the first of the modules that has it."""
    for module in modules:
        try:
            return getattr(importlib.import_module(f"consumer.{module}"), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"this checkout has no {name} in {', '.join(modules)}")


def main() -> None:
    """Measure and print."""
    stored, reviews, names, rounds = sys.argv[1:5]
    tokenizer_class = found("PromptTokenizer", "extraction.prompts", "extraction.tokenizer")
    with_markers = found("with_markers", "extraction.prompts", "extraction.tokenizer")
    prompt_limits = found("PromptLimits", "extraction.prompts", "extraction.contract")
    limits = found("ExtractionLimits", "extraction.task", "extraction.limits")
    tasks = found("load_tasks", "config.task_files", "tasks")(())
    tokenizer = tokenizer_class(with_markers(Path(stored).read_bytes()))
    engine = found("Engine", "extraction.engine")(tokenizer, prompt_limits(), limits())
    cells = found("Cells", "extraction.window")
    asked = [tasks[name] for name in names.split(",")]
    texts = [json.loads(line)["text"] for line in Path(reviews).read_text("utf-8").splitlines()]
    answers = [[answered(engine, text, task, cells) for task in asked] for text in texts]
    least = float("inf")
    for _ in range(int(rounds)):
        # Equal and not the same: the engine keeps the tokens of the last text that it had.
        again = [f"{text} "[:-1] for text in texts]
        began = time.process_time()
        for text, every in zip(again, answers, strict=True):
            for task, levels in zip(asked, every, strict=True):
                run(engine.start(text, task), levels)
        least = min(least, time.process_time() - began)
    print(least / len(texts) * 1e6)


def run(extraction: Any, levels: list[list[Any]]) -> None:
    """One task on one text."""
    for level in levels:
        for _ in extraction.windows:
            pass
        extraction.advance(level)
    extraction.result()


def answered(engine: Any, text: str, task: Any, cells: Any) -> list[list[Any]]:
    """The answers of each level."""
    extraction, levels = engine.start(text, task), []
    while not extraction.finished:
        levels.append([one_fact(window, engine.tokenizer, cells) for window in extraction.windows])
        extraction.advance(levels[-1])
    return levels


def one_fact(window: Any, tokenizer: Any, cells: Any) -> Any:
    """Two tokens in the text, or the marker of a classification, are of the first type in the hint."""
    head, first = int((window.input_ids == tokenizer.type).argmax()), window.text_start
    last = first
    if window.input_ids[first] not in (tokenizer.classify, tokenizer.multiclassify):
        first += 1
        last = min(first + 1, len(window.input_ids) - 2)
    pairs = np.array([(first, last), (first, head), (head, last)], np.int32)
    return cells(pairs[:, 0].copy(), pairs[:, 1].copy(), np.full(3, 2.0, np.float32))


if __name__ == "__main__":
    main()
