"""Writes the project's own golden fixtures: ``python tests/golden/own/make_own.py`` (the output is checked in).

Nothing of the engine is used. Each scenario states by hand which hints every level asks and which facts the model
"finds"; slow_prompts turns that into windows and cells; and the expected output is written by hand.
Scores follow from the logits: three equal logits of 1, 2, 3 or 4 give 0.7311, 0.8808, 0.9526 or 0.9820.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from own_classify import votes
from own_extract import spans
from slow_prompts import Book

HERE = Path(__file__).resolve().parent


def fixtures() -> dict[str, str]:
    """File name -> content, one JSON object a line."""
    book = Book()
    spans(book)
    votes(book)
    return {
        "own_extract.jsonl": "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in book.extract),
        "own_classify.jsonl": "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in book.classify),
    }


if __name__ == "__main__":
    for file_name, content in fixtures().items():
        (HERE / file_name).write_text(content, encoding="utf-8")
        sys.stderr.write(f"{file_name}: {content.count(chr(10))} cases\n")
